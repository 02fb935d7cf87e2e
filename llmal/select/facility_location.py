"""Facility location: rows that together represent every row best."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import BLOCK
from llmal.select.stage import Pool, Selection, Selector

EXACT_ROWS = 20_000
"""Larger pools are served by stochastic greedy, judged on a sample of this size."""

AT_ONCE = 64
"""Gains computed anew together: one pass over memory costs little more than one column."""

ROUNDING = 1e-5
"""Share by which a sum of 20,000 float32 similarities may be off, generously: bounds only get looser."""

TILE = 512
"""Rows and columns of similarities computed at once: 1 MB of float32 stay near the processor."""

KEPT_ROWS = 10_000
"""Pools up to this size keep all similarities while they are served: 400 MB in float32."""


class FacilityLocation(Selector):
    """Maximises the sum over rows of the similarity (1 + cos) / 2 to the nearest chosen row.

    Greedy is within 1 - 1/e of the best set (Nemhauser et al. 1978). Pools up to 20,000 rows: lazy greedy,
    exact.
    Larger ones: each step looks at a random candidate set of size (n / k) ln(1 / epsilon), and the sum runs
    over a random 20,000 rows. Source: Minoux 1978 (lazy), Mirzasoleiman et al. 2015 (stochastic).
    """

    epsilon: float = Field(
        0.1, gt=0, lt=1, description="slack of stochastic greedy, for pools above 20,000 rows"
    )

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, by decreasing gain."""
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        candidates = _unit(pool.vectors[pool.unlabelled])
        u = len(candidates)
        judged = (
            candidates if u <= EXACT_ROWS else candidates[np.sort(rng.choice(u, EXACT_ROWS, replace=False))]
        )
        served = np.zeros(
            len(judged), np.float32
        )  # similarity of each row to its nearest chosen or labelled one
        for at in range(0, len(pool.labelled), BLOCK):
            known = _unit(pool.vectors[pool.labelled[at : at + BLOCK]])
            served = np.maximum(served, _similarity(judged, known).max(axis=1))
        if u <= EXACT_ROWS:
            picked, gains = _lazy(candidates, judged, served, k)
        else:
            size = max(1, int(np.ceil(u / k * np.log(1 / self.epsilon))))
            picked, gains = _stochastic(candidates, judged, served, k, size, rng)
        mean = np.asarray(gains) / len(judged)
        reasons = [f"brings every text {g:.4f} nearer to a chosen one on average" for g in mean]
        return Selection(pool.unlabelled[picked], np.asarray(gains, np.float64), reasons)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.asarray(vectors)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(a, b) similarities (1 + cos) / 2 of unit rows."""
    out = np.asarray(a @ b.T, np.float32)
    np.clip(out, -1, 1, out=out)
    out += 1
    out *= 0.5
    return out


def _all_similarities(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, n) similarities of rows to each other, each pair computed once."""
    out = np.empty((len(rows), len(rows)), np.float32)
    for i in range(0, len(rows), TILE):
        for j in range(i, len(rows), TILE):
            part = _similarity(rows[i : i + TILE], rows[j : j + TILE])
            out[i : i + TILE, j : j + TILE] = part
            out[j : j + TILE, i : i + TILE] = part.T
    return out


def _gains(
    judged: NDArray[np.float32], served: NDArray[np.float32], candidates: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What each candidate would add to the sum: (c,) >= 0, in blocks."""
    out = np.zeros(len(candidates))
    for at in range(0, len(candidates), 1024):
        more = _similarity(judged, candidates[at : at + 1024])
        more -= served[:, None]
        np.maximum(more, 0, out=more)
        out[at : at + 1024] = more.sum(axis=0, dtype=np.float64)
    return out


def _at_most(
    kept: NDArray[np.float32], rows: list[int], served: NDArray[np.float32], room: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Upper bounds of what rows would add, from float32 sums of the similarities kept."""
    total = served.sum(dtype=np.float64)
    sums = [float(np.maximum(kept[i], served, out=room).sum()) for i in rows]
    return np.asarray(np.array(sums) * (1 + ROUNDING) - total)


def _lazy(
    candidates: NDArray[np.float32], judged: NDArray[np.float32], served: NDArray[np.float32], k: int
) -> tuple[list[int], list[float]]:
    """Exact greedy: a gain can only shrink, so the heap's top is right once computed this step.

    Stale gains are bounded anew many at a time, from similarities kept in memory where they fit; what comes
    to the top on its bound is computed in float64.
    """
    kept = _all_similarities(candidates) if len(candidates) <= KEPT_ROWS else None
    room = np.empty(len(judged), np.float32)
    first = (len(judged) + candidates @ judged.sum(axis=0, dtype=np.float64)) / 2 + ROUNDING * len(judged)
    heap = [(-float(bound), i, -1) for i, bound in enumerate(first)]  # bound, row, 2 x step; + 1 if computed
    heapq.heapify(heap)
    picked: list[int] = []
    gains: list[float] = []
    while len(picked) < k:
        gain, i, state = heap[0]
        now = 2 * len(picked)
        if state == now + 1:
            heapq.heappop(heap)
            picked.append(i)
            gains.append(-gain)
            served = np.maximum(served, _similarity(judged, candidates[i : i + 1])[:, 0])
        elif state == now and kept is not None:
            more = np.maximum(kept[i] - served, 0).sum(dtype=np.float64)
            heapq.heapreplace(heap, (-float(more), i, now + 1))
        else:
            stale: list[int] = []
            while heap and len(stale) < AT_ONCE and heap[0][2] < now:
                stale.append(heapq.heappop(heap)[1])
            if kept is None:
                found, state = _gains(judged, served, candidates[stale]), now + 1
            else:
                found, state = _at_most(kept, stale, served, room), now
            for j, bound in zip(stale, found, strict=True):
                heapq.heappush(heap, (-float(bound), j, state))
    return picked, gains


def _stochastic(
    candidates: NDArray[np.float32],
    judged: NDArray[np.float32],
    served: NDArray[np.float32],
    k: int,
    size: int,
    rng: np.random.Generator,
) -> tuple[list[int], list[float]]:
    open_rows = np.ones(len(candidates), bool)
    picked: list[int] = []
    gains: list[float] = []
    while len(picked) < k:
        left = np.flatnonzero(open_rows)
        drawn = np.sort(rng.choice(left, min(size, len(left)), replace=False))
        found = _gains(judged, served, candidates[drawn])
        best = int(drawn[found.argmax()])
        picked.append(best)
        gains.append(float(found.max()))
        open_rows[best] = False
        served = np.maximum(served, _similarity(judged, candidates[best : best + 1])[:, 0])
    return picked, gains
