"""The contract of a query strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmal.errors import UserError
from llmal.select.stage import Pool, Selection, Selector, Sources
from llmal.testing.contracts.plugin import PluginContract, refused

if TYPE_CHECKING:
    from llmal.lm.asker import Asker
    from llmal.lm.wire import Message

N = 60
C = 3


class MadeSources(Sources):
    """Sources that say of a row what its vector makes them say, so that permuting the rows permutes them.

    Args:
        vectors: (n, d) float32.
        labelled: (l,) rows with votes.
        classes: C, at most d.
    """

    def __init__(self, vectors: NDArray[np.float32], labelled: NDArray[np.int64], classes: int) -> None:
        self._vectors, self._labelled, self._classes = vectors, labelled, classes

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Texts of 1 to 30 words."""
        return [f"{x[0]:.4f} " + "word " * int(30 * abs(x[1])) for x in self._vectors[rows]]

    def prior(self) -> NDArray[np.float32]:
        """(n, C) a softmax over the first directions."""
        odds = np.exp(3 * self._vectors[:, : self._classes])
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)

    def votes(self) -> NDArray[np.int64]:
        """(l, 3) two annotators who mostly agree and one who seldom votes."""
        x = self._vectors[self._labelled]
        first = x[:, : self._classes].argmax(axis=1)
        second = np.where(x[:, 0] > 0.4, (first + 1) % self._classes, first)
        return np.stack([first, second, np.where(x[:, 1] > 0.3, first, -1)], axis=1)

    def secret(self) -> bytes:
        """No secret at all."""
        return b"no secret"

    def ask(self, asker: Asker, questions: Sequence[Sequence[Message]]) -> list[str | None]:
        """The same answer to every question."""
        return ["[1]" for _ in questions]


class SelectorContract(PluginContract):
    """Checks of a query strategy.

    Attributes:
        deterministic: the strategy draws nothing at random: other seeds give the same picks, and permuting
            the rows of the pool permutes them.
        compares_labelled: the strategy compares with the student's probabilities on labelled rows; these must
            then do no harm where they are not numbers.
    """

    deterministic: ClassVar[bool] = False
    compares_labelled: ClassVar[bool] = False

    def plugin(self) -> Selector:
        """The strategy under test."""
        raise NotImplementedError("override plugin() and return an instance of your strategy")

    def pool(self, *, n: int = N, labelled: int = 6, classes: int = C) -> Pool:
        """A pool without ties: random rows and probabilities, some rows labelled, the last without answer."""
        rng = np.random.default_rng(1)
        vectors = _unit(rng.normal(size=(n, 8)))
        order = rng.permutation(n)
        probs = None
        if self.plugin().needs_probs:
            odds = rng.gamma(1.0, size=(n, classes))
            probs = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        known = np.sort(order[:labelled])
        sources = MadeSources(vectors, known, classes)
        targets = np.eye(classes, dtype=np.float32)[np.arange(labelled) % classes]
        targets[2 * labelled // 3 :] = 0
        unlabelled = np.sort(order[labelled:])
        return _locked(Pool(vectors, unlabelled, known, probs, classes, targets, sources=sources))

    def picks(self, pool: Pool, k: int, *, seed: int = 0) -> NDArray[np.int64]:
        """Rows picked, after the checks that hold for every answer of a strategy."""
        chosen = self.plugin().select(pool, k, np.random.default_rng(seed))
        check_selection(chosen, pool, k)
        return chosen.rows

    def test_picks_as_many_as_asked(self) -> None:
        """Exactly min(k, u) distinct rows, all unlabelled, each with a score and a reason."""
        pool = self.pool()
        for k in (1, 2, 7, len(pool.unlabelled) - 1, len(pool.unlabelled), len(pool.unlabelled) + 5):
            self.picks(pool, k)

    def test_works_without_any_label(self) -> None:
        """No row is labelled yet, or the labels are not told."""
        self.picks(self.pool(labelled=0), 5)
        self.picks(self.pool()._replace(targets=None), 5)

    def test_nothing_to_pick(self) -> None:
        """A request for nothing and an empty pool both give nothing."""
        pool = self.pool()
        self.picks(pool, 0)
        nobody = np.zeros(0, np.int64)
        self.picks(pool._replace(unlabelled=nobody), 5)
        probs = None if pool.probs is None else pool.probs[:0]
        self.picks(Pool(pool.vectors[:0], nobody, nobody, probs, C), 5)

    def test_same_rng_same_picks(self) -> None:
        """Nothing but the generator handed in is random, and the process's own randomness stays as it is."""
        pool = self.pool()
        before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002 - is it touched?
        first, second = self.picks(pool, 9, seed=3), self.picks(pool, 9, seed=3)
        assert first.tolist() == second.tolist(), f"two calls with one seed picked {first} and {second}"
        after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002 - see above
        assert (before == after).all(), "the strategy drew from numpy's global randomness"

    def test_deterministic_strategies_ignore_the_seed(self) -> None:
        """A strategy said to be deterministic picks the same under any seed."""
        if self.deterministic:
            pool = self.pool()
            assert self.picks(pool, 9, seed=3).tolist() == self.picks(pool, 9, seed=4).tolist()

    def test_permuting_rows_permutes_picks(self) -> None:
        """The order of the pool's rows says nothing; only deterministic strategies can be held to it."""
        if not self.deterministic:
            return
        pool = self.pool()
        order = np.random.default_rng(5).permutation(N)  # new row i is old row order[i]
        place = np.argsort(order)
        probs = None if pool.probs is None else pool.probs[order]
        vectors, known = pool.vectors[order], np.sort(place[pool.labelled])
        sources = MadeSources(vectors, known, C)
        assert pool.targets is not None
        targets = pool.targets[np.argsort(place[pool.labelled])]
        moved = Pool(vectors, np.sort(place[pool.unlabelled]), known, probs, C, targets, sources=sources)
        old, new = self.picks(pool, 9), order[self.picks(_locked(moved), 9)]
        assert old.tolist() == new.tolist(), f"picked {old}; after permuting the rows {new}"

    def test_pool_is_left_alone(self) -> None:
        """Arrays are not written to, as those on disk cannot be."""
        pool = self.pool()
        copies = [None if a is None else a.copy() for a in pool[:4]]
        self.picks(pool, 9)
        for name, before, after in zip(Pool._fields, copies, pool[:4], strict=False):
            assert before is None or (before == after).all(), f"pool.{name} was changed"

    def test_labels_cannot_be_seen(self) -> None:
        """Labels are handed over for labelled rows alone, and the student's word on those does not matter."""
        arrays = {"vectors", "unlabelled", "labelled", "probs", "n_classes", "targets", "multi"}
        assert set(Pool._fields) == arrays | {"sources", "names"}
        pool = self.pool()
        if pool.probs is None:
            return
        probs = pool.probs.copy()
        probs[pool.labelled] = np.nan
        same = self.picks(pool, 9).tolist() == self.picks(_locked(pool._replace(probs=probs)), 9).tolist()
        assert same or self.compares_labelled, "the probabilities of labelled rows changed the picks"

    def test_one_class(self) -> None:
        """A single class is no error."""
        self.picks(self.pool(classes=1), 5)

    def test_duplicated_rows(self) -> None:
        """Rows that are equal are picked as rows of their own."""
        pool = self.pool()
        vectors = pool.vectors.copy()
        vectors[: N // 2] = vectors[0]
        for same in (vectors, np.repeat(vectors[:1], N, axis=0)):
            alike = _locked(pool._replace(vectors=same))
            for k in (5, len(pool.unlabelled)):
                self.picks(alike, k)

    def test_all_zero_row(self) -> None:
        """A vector without direction is no error."""
        pool = self.pool()
        vectors = pool.vectors.copy()
        vectors[pool.unlabelled[0]] = 0.0
        self.picks(_locked(pool._replace(vectors=vectors)), 9)

    def test_probability_that_is_not_a_number(self) -> None:
        """The error names the row."""
        pool = self.pool()
        if pool.probs is None:
            return
        row = int(pool.unlabelled[4])
        for value in (np.nan, np.inf):
            probs = pool.probs.copy()
            probs[row, 1] = value
            with refused(ValueError, naming=f"row {row}"):
                self.picks(_locked(pool._replace(probs=probs)), 5)

    def test_needs_a_student_or_does_not(self) -> None:
        """A strategy that needs probabilities says so when there are none."""
        if self.plugin().needs_probs:
            with refused(UserError):
                self.picks(self.pool()._replace(probs=None), 5)


def check_selection(chosen: Selection, pool: Pool, k: int) -> None:
    """What holds for every answer: min(k, u) distinct unlabelled rows, a finite score and a reason each."""
    want = min(k, len(pool.unlabelled))
    rows = chosen.rows
    assert isinstance(rows, np.ndarray), f"rows are a {type(rows).__name__}, not an array"
    assert np.issubdtype(rows.dtype, np.integer), f"rows are {rows.dtype}, not whole numbers"
    assert rows.shape == (want,), f"{rows.shape} rows for k={k} and {len(pool.unlabelled)} unlabelled"
    assert len(set(rows.tolist())) == want, "a row was picked twice"
    assert set(rows.tolist()) <= set(pool.unlabelled.tolist()), "a row was picked that is not unlabelled"
    assert chosen.scores.shape == (want,), f"{chosen.scores.shape} scores for {want} rows"
    assert np.isfinite(chosen.scores).all(), "a score is not finite"
    assert len(chosen.reasons) == want, f"{len(chosen.reasons)} reasons for {want} rows"
    assert all(isinstance(reason, str) and reason for reason in chosen.reasons), "a reason is empty"


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _locked(pool: Pool) -> Pool:
    """Arrays mapped from disk are read-only; so are these."""
    for array in pool[:4]:
        if array is not None:
            array.flags.writeable = False
    return pool
