"""A cold start for a price: representative texts, short ones before long ones."""

from __future__ import annotations

import heapq
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.records import batched
from llmal.select.stage import Pool, Selection, Selector

MOST_ROWS = 20_000
"""Rows that may be picked and rows that are to be represented; larger pools are sampled at random."""

KEPT = 100_000_000
"""Similarities kept in memory: 400 MB in float32. Where there are more, they are computed anew each time."""

BYTES_A_TOKEN = 4
"""UTF-8 bytes of English a token of common tokenizers covers, about 20 % either way."""

AT_ONCE, CACHED = 64, 1024
"""Gains computed anew together, and rows compared with them at once."""

Weigh = Literal["gain", "gain per token"]


class SeedCost(Selector):
    """Representatives of the pool that together cost no more than a budget.

    A text costs its length in bytes / 4 tokens plus what every question costs. Facility location (see
    `facility-location`) is raised by two greedy rules, the largest gain and the largest gain per token, and
    the better set is kept: without a bound on the number of picks it is worth at least (1 - 1/e) / 2 of the
    best set. A row fits if the rest of the batch can still be filled with the cheapest ones. Where not even
    the k cheapest rows fit, the budget is spent first, the cheapest rows follow, and the user is told.
    Source: Leskovec et al. 2007 (two greedy rules), Samet et al. 2023 (SeedAL: seeds under a labelling cost,
    which it optimises for 3D scenes in another way).
    """

    budget: float | None = Field(
        None, gt=0, description="tokens the picks of a call may cost; k times a text's mean when absent"
    )
    question: float = Field(
        16, ge=1, description="tokens a question costs beside its text, such as its answer"
    )

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows, by decreasing gain, or gain per token.

        Raises:
            UserError: the pool has no sources.
        """
        rows = pool.unlabelled
        k = min(k, len(rows))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        if len(rows) > max(MOST_ROWS, k):
            rows = np.sort(rng.choice(rows, max(MOST_ROWS, k), replace=False))
        length = [len(text.encode("utf-8", "replace")) for text in pool.look().texts(rows)]
        cost = np.array(length, np.int64) + round(BYTES_A_TOKEN * self.question)
        allowed = (
            int(cost.sum()) * k // len(rows) if self.budget is None else int(self.budget * BYTES_A_TOKEN)
        )
        best = better(_Gains(pool, rows, rng), cost, allowed, k)
        rest = np.setdiff1d(np.arange(len(rows)), best.rows)
        extra = rest[np.argsort(cost[rest], kind="stable")][: k - len(best.rows)]
        picked = np.concatenate([best.rows, extra])
        tokens = cost[picked] / BYTES_A_TOKEN
        words = "brings every text {:.5f} nearer to a chosen one on average, for {:.0f} tokens"
        reasons = [words.format(g, t) for g, t in zip(best.gains, tokens, strict=False)]
        reasons += [f"costs only {t:.0f} tokens; the budget was spent" for t in tokens[len(best.rows) :]]
        note = f"{tokens.sum():,.0f} of {allowed / BYTES_A_TOKEN:,.0f} tokens, by largest {best.rule}"
        if len(extra):
            note = f"{len(extra)} of {k} picks are over the budget; {note}"
        return Selection(
            rows[picked], np.concatenate([best.scores, np.zeros(len(extra))]), reasons, note=note
        )


class Chosen(NamedTuple):
    """Rows in the order of choosing, what each gained (mean over judged rows), the rank value, the rule."""

    rows: NDArray[np.int64]
    gains: NDArray[np.float64]
    scores: NDArray[np.float64]
    rule: Weigh


class _Gains:
    """Facility location over a sample of rows; labelled rows count as chosen."""

    def __init__(self, pool: Pool, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.candidates = _unit(pool.vectors[rows])
        self.judged = self.candidates
        if len(rows) > MOST_ROWS:
            self.judged = self.candidates[np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))]
        self.known = np.zeros(len(self.judged), np.float32)
        for part in batched(pool.labelled.tolist(), CACHED):
            for at in range(0, len(self.judged), CACHED):
                near = alike(self.judged[at : at + CACHED], _unit(pool.vectors[part])).max(axis=1)
                self.known[at : at + CACHED] = np.maximum(self.known[at : at + CACHED], near)
        few = len(rows) * len(self.judged) <= KEPT
        self.kept = alike(self.candidates, self.judged) if few else None
        self.first = self.of(np.arange(len(rows)), self.known)

    def of(self, rows: NDArray[np.int64], served: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each row would add to the mean similarity of judged rows to a chosen one: >= 0."""
        total = np.zeros(len(rows))
        for part in range(0, len(rows), CACHED):
            some = rows[part : part + CACHED]
            for at in range(0, len(self.judged), CACHED):
                columns = slice(at, at + CACHED)
                if self.kept is None:
                    more = alike(self.candidates[some], self.judged[columns])
                else:
                    more = self.kept[some, columns]
                more -= served[columns]
                total[part : part + CACHED] += np.maximum(more, 0).sum(axis=1, dtype=np.float64)
        return total / len(self.judged)


def better(gains: _Gains, cost: NDArray[np.int64], allowed: int, k: int) -> Chosen:
    """The better of two greedy sets of at most k rows that cost at most `allowed`; of equals the first."""
    sets = [greedy(gains, cost, allowed, k, "gain per token"), greedy(gains, cost, allowed, k, "gain")]
    return max(sets, key=lambda chosen: chosen.gains.sum())


def greedy(gains: _Gains, cost: NDArray[np.int64], allowed: int, k: int, rule: Weigh) -> Chosen:
    """Rows by largest gain, or gain per token, of those that fit.

    Where k rows fit at all, a row fits only if k rows still do after it. No row that does not fit will fit
    later, and no gain grows, so the heap's top is right once its gain is of this step.

    Args:
        gains: of rows, given how well each judged row is served.
        cost: (c,) > 0.
        allowed: cost of all in the same unit.
        k: most rows.
        rule: what is taken first.
    """
    cheap = np.argsort(cost, kind="stable")[: k - 1]
    fill = int(cost[np.argsort(cost, kind="stable")[:k]].sum()) <= allowed
    kept = dict.fromkeys(cheap.tolist() if fill else [])  # set aside to fill the batch, cheapest first
    limit = allowed - int(cost[list(kept)].sum())
    per = np.ones(len(cost)) if rule == "gain" else cost / BYTES_A_TOKEN
    heap = [(-float(g), i, 0) for i, g in enumerate(gains.first / per)]
    heapq.heapify(heap)
    served, rows, scores = gains.known, list[int](), list[float]()
    while heap and len(rows) < k:
        score, i, step = heap[0]
        if cost[i] > limit:
            heapq.heappop(heap)
        elif step < len(rows):
            stale = np.array(_stale(heap, len(rows)), np.int64)
            for j, now in zip(stale.tolist(), gains.of(stale, served) / per[stale], strict=True):
                heapq.heappush(heap, (-float(now), j, len(rows)))
        else:
            heapq.heappop(heap)
            rows.append(i)
            scores.append(-score)
            served = np.maximum(served, alike(gains.judged, gains.candidates[i : i + 1])[:, 0])
            if not fill:
                limit -= int(cost[i])
            elif i in kept:
                del kept[i]
            elif kept:
                limit -= int(cost[i]) - int(cost[kept.popitem()[0]])
    picked = np.array(rows, np.int64)
    return Chosen(picked, np.array(scores) * per[picked], np.array(scores), rule)


def _stale(heap: list[tuple[float, int, int]], step: int) -> list[int]:
    rows: list[int] = []
    while heap and len(rows) < AT_ONCE and heap[0][2] < step:
        rows.append(heapq.heappop(heap)[1])
    return rows


def alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(len(a), len(b)) similarity (1 + cos) / 2 of unit rows, in [0, 1]."""
    return np.asarray((1 + np.clip(a @ b.T, -1, 1)) / 2, np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.asarray(vectors)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
