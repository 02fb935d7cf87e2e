"""BESRA: ask where an answer is expected to improve a proper score of all the other answers most."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.select.geometry import BLOCK
from llmal.select.kmeans import MAX_CENTRES, cluster
from llmal.select.margin import margins
from llmal.select.stage import Pool, Selection, top
from llmal.select.warm import Warm

MOST_ROWS = 10_000
"""Unlabelled rows looked at; of a larger pool this many are drawn."""

ALPHA = 0.1
"""Exponent of the Beta score, whose other one is 1: the setting of the paper."""

FLOOR = 1e-6
"""Probabilities are kept this far from 0 and 1; at 0 an outcome would leave no member of the ensemble."""

STRENGTH = 1.0
"""Inverse L2 penalty of a head, scikit-learn's default: members that are too sure do not differ usefully."""

Loss = Literal["beta", "log", "brier"]


class Besra(Warm):
    """Rows whose answer should lower the expected loss on other rows most, spread out (BESRA).

    Made for `kind: multi`: every label is a yes/no question of its own, with `kind: single` too. A strategy
    sees one student, so the ensemble is ours: logistic heads on the vectors, each fitted on labelled rows
    drawn with replacement. A labelled row without any label is a no to every label with `kind: multi`, where
    that is an ordinary answer (an answer that was not accepted looks the same); with `kind: single` it is
    left out. Where the heads all agree, or nothing is labelled, the student's margin decides.
    Source: Tan et al. 2024.
    """

    loss: Loss = Field("beta", description="beta (as in the paper), log (gives mutual information) or brier")
    members: int = Field(8, ge=2, description="heads of the ensemble")
    estimation: int = Field(100, ge=1, description="rows on which the improvement is estimated")
    share: float = Field(0.5, gt=0, le=1, description="share of rows, those of largest gain, to spread over")

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick k rows: of those with the largest gain, one from each of k groups that help the same rows."""
        rows, enough = pool.unlabelled, max(k, MOST_ROWS)
        if len(rows) > enough:
            rows = np.sort(rng.choice(rows, enough, replace=False))
        known, note = answered(pool)
        if not len(known.rows):
            return self._by_margin(pool, k, "nothing to fit an ensemble on")
        heads = fitted(np.asarray(pool.vectors[known.rows]), known.targets, self.members, rng)
        some = np.sort(rng.choice(rows, min(self.estimation, len(rows)), replace=False))
        there = said(np.asarray(pool.vectors[some]), heads)
        gains = np.concatenate(
            [
                self.gains(said(np.asarray(pool.vectors[rows[at : at + BLOCK]]), heads), there)
                for at in range(0, len(rows), BLOCK)
            ]
        )
        total = gains.mean(axis=1)
        if total.max() <= FLOOR**2:  # rounding
            return self._by_margin(pool, k, "the ensemble is of one mind")
        best = top(total, rows, max(k, round(self.share * len(rows))))
        picked = best[spread(gains[best], k, rng)]
        reasons = [f"its answer should lower the {self.loss} loss of a row by {total[i]:.5f}" for i in picked]
        return Selection(rows[picked], total[picked], reasons, note=note)

    def gains(self, here: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, m) expected fall of the loss at m rows when n rows are answered, summed over labels; >= 0.

        Args:
            here: (C, E, n) probability of a yes to each label, by each of E equally likely members.
            there: (C, E, m) the same at the rows it is estimated on.
        """
        out = np.zeros((here.shape[2], there.shape[2]))
        for p, q in zip(here, there, strict=True):
            out += entropy(q.mean(axis=0), self.loss)
            for outcome in (p, 1 - p):
                weight = outcome / outcome.sum(axis=0)  # of each member, once it has seen this outcome
                out -= outcome.mean(axis=0)[:, None] * entropy(weight.T @ q, self.loss)
        return out

    def _by_margin(self, pool: Pool, k: int, why: str) -> Selection:
        assert pool.probs is not None
        scores = 1 - margins(np.asarray(pool.probs[pool.unlabelled], np.float64), multi=pool.multi)
        best = top(scores, pool.unlabelled, k)
        reasons = [f"margin {1 - s:.3f} between the two likeliest labels; {why}" for s in scores[best]]
        return Selection(pool.unlabelled[best], scores[best], reasons)


def entropy(q: NDArray[np.float64], loss: Loss) -> NDArray[np.float64]:
    """Least expected loss of a yes/no answer that is yes with probability q in (0, 1), elementwise.

    For the Beta family with exponents a and 1 it is (q - q^(a+1)) / (a (a+1)); a = 1 is half the Brier score.
    """
    if loss == "log":
        return np.asarray(-q * np.log(q) - (1 - q) * np.log1p(-q))
    a = ALPHA if loss == "beta" else 1.0
    return np.asarray((q - q ** (a + 1)) / (a * (a + 1)))


class Known(NamedTuple):
    """Labelled rows (l,) and their targets (l, C)."""

    rows: NDArray[np.int64]
    targets: NDArray[np.float32]


def answered(pool: Pool) -> tuple[Known, str]:
    """The labelled rows to learn from, and what the user should know of them."""
    if pool.targets is None:
        return Known(pool.labelled[:0], np.zeros((0, pool.n_classes), np.float32)), ""
    empty = ~pool.targets.any(axis=1)
    if pool.multi:
        note = f"{empty.sum()} labelled rows without a label count as a no to every label"
        return Known(pool.labelled, pool.targets), note if empty.any() else ""
    return Known(pool.labelled[~empty], pool.targets[~empty]), ""


def fitted(
    vectors: NDArray[np.float32], targets: NDArray[np.float32], members: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(C, E, d + 1) logistic heads, each on l rows drawn with replacement; the last weight is the bias.

    A label without both answers in a draw gets the same share of yes everywhere, (yes + 1/2) / (l + 1).
    """
    from sklearn.linear_model import LogisticRegression

    n, columns = targets.shape
    heads = np.zeros((columns, members, vectors.shape[1] + 1))
    for e in range(members):
        count = np.bincount(rng.integers(n, size=n), minlength=n)
        drawn = count > 0
        for c in range(columns):
            yes = targets[drawn, c] > 0
            if yes.all() or not yes.any():
                share = (n * float(yes.all()) + 0.5) / (n + 1)
                heads[c, e, -1] = np.log(share / (1 - share))
                continue
            model = LogisticRegression(C=STRENGTH, max_iter=2000)
            model.fit(vectors[drawn], yes, count[drawn])
            heads[c, e] = np.append(model.coef_[0], model.intercept_)
    return heads


def said(vectors: NDArray[np.float32], heads: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, E, n) probability of a yes, kept off 0 and 1."""
    odds = heads[..., :-1] @ vectors.T.astype(np.float64) + heads[..., -1:]
    return np.asarray(np.clip(0.5 * (1 + np.tanh(odds / 2)), FLOOR, 1 - FLOOR))


def spread(gains: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """K positions: the row nearest to each centre of a k-means on directions of gain, largest gain first.

    Equal rows may leave fewer centres than k; the rows of largest gain, which come first, fill up.
    """
    length = np.maximum(np.linalg.norm(gains, axis=1, keepdims=True), FLOOR**2)
    towards = np.asarray(gains / length, np.float32)
    centres, label = cluster(towards, min(k, MAX_CENTRES), rng)
    off = ((towards - centres[label]) ** 2).sum(axis=1)
    order = np.lexsort((np.arange(len(off)), off, label))
    nearest = order[np.r_[True, np.diff(label[order]) > 0]]
    others = np.setdiff1d(np.arange(len(off)), nearest)
    return np.sort(np.concatenate([nearest, others[: k - len(nearest)]]))
