"""Strategies that need a student, and the modifiers that compose with them in the file."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llmal.errors import UserError
from llmal.select import ups
from llmal.select.stage import Pool, Selection, Selector, top

Draw = Literal["top", "power", "softmax", "softrank"]

SIMILARITIES = 2**22
"""Similarities to anchors computed at once: 16 MB of float32, and a few times that to sort them."""


def _named_or(form: Any) -> BeforeValidator:
    """Accept a bare name as short for a mapping with `use`; `form` is what editors may be told."""
    return BeforeValidator(
        lambda value: {"use": value} if isinstance(value, str) else value, json_schema_input_type=form
    )


class Batch(BaseModel):
    """How a batch is drawn from scores.

    `top` takes the highest. The others draw without replacement, Gumbel keys on the scores: `power` with
    chance in proportion to score^beta, `softmax` to exp(beta score), `softrank` to rank^-beta. A batch drawn
    by chance holds fewer twins than the top does, at no cost. Source: Kirsch et al. 2023.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: Draw = "top"
    beta: float = Field(1.0, ge=0, description="0 draws uniformly; a large one takes the top")

    def order(
        self, scores: NDArray[np.float64], rows: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Positions of all scores in the order of drawing.

        Raises:
            ValueError: `power` with a negative score, or a score that is not finite.
        """
        best = top(scores, rows, len(scores))
        if self.use == "top":
            return best
        return np.argsort(-(self.log_odds(scores, best) + rng.gumbel(size=len(scores))), kind="stable")

    def log_odds(self, scores: NDArray[np.float64], best: NDArray[np.int64]) -> NDArray[np.float64]:
        """(u,) logarithm of each row's odds at the first draw; -inf where the odds are 0."""
        if self.use == "softmax":
            return self.beta * scores
        if self.use == "softrank":
            rank = np.empty(len(scores))
            rank[best] = np.arange(1, len(scores) + 1)
            return np.asarray(-self.beta * np.log(rank))
        if len(scores) and scores.min() < 0:
            raise ValueError("a power batch needs scores of 0 or more; use softrank")
        if self.beta == 0:
            return np.zeros(len(scores))
        with np.errstate(divide="ignore"):
            return np.asarray(self.beta * np.log(scores))


class SubPool(BaseModel):
    """Rows a strategy may look at, for large and imbalanced pools: near labelled ones, or the most uncertain.

    `anchoral` draws anchors of each class by k-means++ among its labelled rows, retrieves each anchor's
    nearest unlabelled rows, and keeps those with the highest mean similarity to the anchors that retrieved
    them. `seals` takes every labelled row as an anchor and keeps all that were retrieved.
    Source: Lesci & Vlachos 2024 (AnchorAL), Coleman et al. 2022 (SEALS). `ups` keeps the most uncertain
    `gamma` of the rows and others with a chance that falls by rank; it spares slow strategies (badge, ldm)
    most of their work, and none of the student's. Source: Tsvigun et al. 2022.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: Literal["anchoral", "seals", "ups"] = "anchoral"
    anchors: int = Field(10, ge=1, description="anchors a class")
    neighbours: int = Field(50, ge=1, description="rows retrieved for each anchor")
    most: int = Field(10_000, ge=1, description="rows kept (anchoral)")
    gamma: float = Field(0.1, ge=0, le=1, description="share of rows, the least sure, always kept (ups)")
    temperature: float = Field(0.01, gt=0, description="how slowly the chance falls beyond them (ups)")

    def rows(self, pool: Pool, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Unlabelled rows to look at, ascending; topped up to k where too few were found."""
        if self.use == "ups":
            assert pool.probs is not None
            doubt = ups.unsure(pool.probs[pool.unlabelled], multi=pool.multi)
            law = {"gamma": self.gamma, "temperature": self.temperature}
            return pool.unlabelled[ups.subsample(doubt, k, rng, **law)]
        anchors = self._anchors(pool, rng)
        if not len(anchors):
            return pool.unlabelled
        near = retrieved(pool, anchors, min(self.neighbours, len(pool.unlabelled)))
        scores = mean_of_retrieved(*near, len(pool.unlabelled))
        found = np.flatnonzero(np.isfinite(scores))
        if self.use == "anchoral" and len(found) > self.most:
            found = found[np.lexsort((found, -scores[found]))[: self.most]]
        if len(found) < k:
            left = np.setdiff1d(np.arange(len(pool.unlabelled)), found)
            found = np.concatenate([found, rng.permutation(left)[: k - len(found)]])
        return pool.unlabelled[np.sort(found)]

    def _anchors(self, pool: Pool, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.use == "seals" or pool.targets is None:
            return pool.labelled
        chosen = [
            _spread(pool, pool.labelled[pool.targets[:, c] > 0], self.anchors, rng)
            for c in range(pool.n_classes)
        ]
        return np.unique(np.concatenate(chosen)) if chosen else pool.labelled


def retrieved(
    pool: Pool, anchors: NDArray[np.int64], neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each anchor the positions of its nearest unlabelled rows, and similarities: (a, neighbours) each.

    The pool is read in blocks.
    """
    anchor = np.asarray(pool.vectors[anchors])
    at = np.zeros((len(anchors), 0), np.int64)
    near = np.zeros((len(anchors), 0), np.float32)
    columns = max(1024, SIMILARITIES // len(anchors))
    for start in range(0, len(pool.unlabelled), columns):
        some = np.asarray(pool.vectors[pool.unlabelled[start : start + columns]])
        new = anchor @ some.T
        here = np.broadcast_to(np.arange(start, start + len(some)), new.shape)
        near, at = np.concatenate([near, new], axis=1), np.concatenate([at, here], axis=1)
        if near.shape[1] > neighbours:
            best = np.argpartition(-near, neighbours - 1, axis=1)[:, :neighbours]
            near, at = np.take_along_axis(near, best, axis=1), np.take_along_axis(at, best, axis=1)
    return at, near


def mean_of_retrieved(at: NDArray[np.int64], near: NDArray[np.float32], n: int) -> NDArray[np.float64]:
    """For each of n rows the mean similarity to the anchors that retrieved it: (n,); -inf where none did.

    Args:
        at: (a, m) what each anchor retrieved.
        near: (a, m) similarities.
        n: rows of the pool.
    """
    count = np.bincount(at.ravel(), minlength=n)
    total = np.bincount(at.ravel(), weights=near.ravel(), minlength=n)
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf)


def _spread(pool: Pool, rows: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """k-means++ seeding among rows: all of them when they are few."""
    if len(rows) <= n:
        return rows
    vectors = np.asarray(pool.vectors[rows], np.float64)
    picked = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    while len(picked) < n:
        nearest = np.minimum(nearest, ((vectors - vectors[picked[-1]]) ** 2).sum(axis=1))
        total = nearest.sum()
        if total <= 0:  # the rest repeats what is picked
            break
        picked.append(int(rng.choice(len(rows), p=nearest / total)))
    return rows[picked]


class Warm(Selector):
    """Base of strategies that need a student; implement `choose`."""

    within: Annotated[SubPool | None, _named_or(Literal["anchoral", "seals", "ups"] | SubPool | None)] = (
        Field(
            None,
            description="look only at rows near labelled ones (anchoral, seals) or at the least sure (ups)",
        )
    )

    needs_probs: ClassVar[bool] = True

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick min(k, u) rows.

        Raises:
            UserError: there is no student yet.
            ValueError: a probability is not finite; the message names the row.
        """
        if pool.probs is None:
            raise UserError(
                f"{self.name} needs a student's probabilities",
                where="select",
                hint="Use a cold start under `first`",
            )
        bad = ~np.isfinite(pool.probs[pool.unlabelled]).all(axis=1)
        if bad.any():
            raise ValueError(f"the probability of row {pool.unlabelled[bad][0]} is not finite")
        k = min(k, len(pool.unlabelled))
        if k == 0:
            return Selection(np.zeros(0, np.int64), np.zeros(0), [])
        if self.within is not None:
            pool = pool._replace(unlabelled=self.within.rows(pool, k, rng))
        return self.choose(pool, k, rng)

    @abstractmethod
    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick exactly k unlabelled rows; 0 < k <= u, and the probabilities are there and finite."""


class Ranked(Warm):
    """Base of strategies that give every row of a pool a score in [0, 1]; implement `scored`."""

    clip: float = Field(0.0, ge=0, lt=1, description="share of the most uncertain rows left out as outliers")
    batch: Annotated[Batch, _named_or(Draw | Batch)] = Field(
        Batch(), description="how a batch is drawn: top, power, softmax, softrank"
    )
    apart: float | None = Field(
        None, gt=0, le=1, description="cosine from which a row is a twin of a picked one"
    )

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Score, leave outliers out, draw, skip twins; each is relaxed rather than picking fewer than k."""
        scores = self.scored(pool)
        order = self.batch.order(scores, pool.unlabelled, rng)
        kept = clipped(scores, self.clip)
        order = np.concatenate(
            [order[kept[order]], order[~kept[order]][::-1]]
        )  # relaxed: least extreme first
        if self.apart is not None:
            order = self._apart(pool, order, k)
        best = order[:k]
        reasons = [self.reason(float(scores[i])) for i in best]
        return Selection(pool.unlabelled[best], scores[best], reasons)

    def _apart(self, pool: Pool, order: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        picked: list[int] = []
        twins: list[int] = []
        for i in order:
            if len(picked) == k:
                break
            row = np.asarray(pool.vectors[pool.unlabelled[i]])
            near = picked and float((np.asarray(pool.vectors[pool.unlabelled[picked]]) @ row).max()) > (
                self.apart or 1
            )
            (twins if near else picked).append(int(i))
        return np.array(picked + twins, np.int64)

    @abstractmethod
    def scored(self, pool: Pool) -> NDArray[np.float64]:
        """(u,) in [0, 1] for the unlabelled rows; higher is asked first."""

    @abstractmethod
    def reason(self, score: float) -> str:
        """A score in words a person understands."""


class Scored(Ranked):
    """Base of strategies that look at nothing but the student's probabilities; implement `scores`."""

    def scored(self, pool: Pool) -> NDArray[np.float64]:
        """(u,) in [0, 1], from the unlabelled rows' probabilities."""
        assert pool.probs is not None
        return self.scores(np.asarray(pool.probs[pool.unlabelled], np.float64), multi=pool.multi)

    @abstractmethod
    def scores(self, probs: NDArray[np.float64], *, multi: bool = False) -> NDArray[np.float64]:
        """(u,) uncertainty in [0, 1] from (u, C) probabilities; higher is asked first.

        With `multi` each column is a yes/no answer of its own.
        """


def clipped(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Which rows stay when the highest `share` of scores is left out as outliers: (u,) bool.

    The percentile is taken over the rows given, never over labelled ones. Source: Gonsior et al. 2024.
    """
    if share == 0 or not len(scores):
        return np.ones(len(scores), bool)
    return np.asarray(scores <= np.percentile(scores, 100 * (1 - share)))
