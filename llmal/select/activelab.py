"""ActiveLab: a new label, or a second opinion on an old one, whichever tells more."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from llmal.errors import UserError
from llmal.select.crowdlab import Scores, Votes, scores
from llmal.select.stage import Pool, Selection, top
from llmal.select.warm import Warm

FOLDS = 5
"""Parts the labelled rows are split into; each is judged by a model that learnt from the others."""

ROUNDS = 300
"""Of the logistic regression's optimiser, at most."""


class ActiveLab(Warm):
    """Rows whose label would tell most, and labelled rows to look at again where annotators err.

    Every row has a score in [0, 1]: how sure annotators and model together are of its class, drawn towards
    chance by as much as one more vote would weigh. The unlabelled rows of lowest score are picked; labelled
    rows below the highest of those are put forward for a second opinion, at most k. Votes are the answers of
    machines and people. The student has seen the labelled rows, so its word on them does not count: logistic
    regression on the vectors, cross-fitted in 5 parts, stands in for it there, and says how much a model's
    word weighs. Without any vote, the student's largest probability decides. Not for `kind: multi`.
    Source: Goh & Mueller 2023.
    """

    def choose(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        """Pick the k unlabelled rows of lowest score.

        Raises:
            UserError: labels are independent, or the pool has no sources.
        """
        if pool.multi:
            raise UserError(
                "activelab weighs votes for one class, and `kind: multi` has yes/no answers",
                where="select",
                hint="Use margin or entropy there",
            )
        assert pool.probs is not None
        unlabelled = np.asarray(pool.probs[pool.unlabelled], np.float64)
        votes = pool.look().votes()
        asked = (votes >= 0).any(axis=1)
        rows, votes = pool.labelled[asked], votes[asked][:, (votes >= 0).any(axis=0)]
        probs = cross_fitted(np.asarray(pool.vectors[rows]), votes, pool.n_classes, rng)
        found = scores(votes, probs, unlabelled)
        best = top(-found.unlabelled, pool.unlabelled, k)
        sure = found.unlabelled[best]
        reasons = [f"annotators and model would be {s:.3f} sure of it, drawn towards chance" for s in sure]
        again = doubted(found, votes, rows, float(sure[-1]), k)
        return Selection(pool.unlabelled[best], -sure, reasons, again)


def doubted(found: Scores, votes: Votes, rows: NDArray[np.int64], below: float, most: int) -> dict[int, str]:
    """Labelled rows with a score lower than `below`, row -> why, the lowest first."""
    order = np.lexsort((rows, found.labelled))
    order = order[found.labelled[order] < below][:most]
    given = (votes >= 0).sum(axis=1)
    agree = (votes == found.label[:, None]).sum(axis=1)
    words = "{} of {} votes agree; score {:.3f}, lower is more doubtful"
    return {int(rows[i]): words.format(agree[i], given[i], found.labelled[i]) for i in order}


def cross_fitted(
    vectors: NDArray[np.float32], votes: Votes, classes: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(l, C) probabilities of rows from models that did not learn from them: logistic regression, 5 parts.

    It learns each row's commonest vote. A part whose rest has a single class is told the rest's shares.

    Args:
        vectors: (l, d).
        votes: (l, m) classes, -1 for none; at least one a row.
        classes: C.
        rng: draws the parts.
    """
    out = np.zeros((len(votes), classes))
    if not len(votes):
        return out
    count = np.stack([(votes == c).sum(axis=1) for c in range(classes)], axis=1)
    label = count.argmax(axis=1)
    part = rng.permutation(np.arange(len(votes)) % FOLDS)
    for fold in range(FOLDS):
        rest, mine = part != fold, part == fold
        if not mine.any():
            continue
        seen = np.bincount(label[rest], minlength=classes)
        if (seen > 0).sum() < 2:
            out[mine] = (seen + 1) / (seen + 1).sum()
        else:
            out[np.ix_(mine, seen > 0)] = _learnt(vectors[rest], label[rest], vectors[mine])
    return out


def _learnt(
    vectors: NDArray[np.float32], label: NDArray[np.int64], asked: NDArray[np.float32]
) -> NDArray[np.float64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is near enough for a score
        model = LogisticRegression(C=10.0, max_iter=ROUNDS).fit(vectors, label)
    return np.asarray(model.predict_proba(asked), np.float64)
