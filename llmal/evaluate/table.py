"""The table of measures: name -> how it is computed from answers and gold; each with n and interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmal.answers import label_table
from llmal.records import Labels, LabelSchema
from llmal.stats import agreement
from llmal.stats.calibration import calibration_gap
from llmal.stats.intervals import Estimate, bootstrap, wilson
from llmal.stats.powered_quality import per_class

RESAMPLES = 1000

Table = NDArray[np.bool_]
"""(n, C) which labels an answer holds."""


def measures_of(
    probs: NDArray[np.float64] | None,
    answers: list[Labels],
    confidence: NDArray[np.float64],
    gold: list[Labels],
    schema: LabelSchema,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """Every measure that can be computed, with its interval.

    Shares get Wilson intervals; macro-F1 and kappa a bootstrap over items (BCa, widened for small n); F1 of a
    class that of a ratio with two cases added; calibration error an exact, conservative one.

    Args:
        probs: (n, C) distribution, or None; kept for measures that need more than the answer.
        answers: n answers.
        confidence: (n,) probability given to the answer; NaN where there is none.
        gold: n answers of people.
        schema: the classes.
        rng: for resampling.
    """
    given, truth = (label_table(labels, schema).astype(bool) for labels in (answers, gold))
    right = (given == truth).all(axis=1)
    out = {"accuracy": wilson(int(right.sum()), len(right))}
    for name, function in _OVER_ITEMS[schema.kind].items():
        estimate = _resampled(function, given, truth, rng)
        if estimate is not None:
            out[name] = estimate
    sure = ~np.isnan(confidence)
    if sure.all():
        out["ece"] = calibration_gap(np.clip(confidence, 0, 1), right)
    for label, c in schema.columns().items():
        hits = int((given[:, c] & truth[:, c]).sum())
        for name, whole in (("precision", given[:, c]), ("recall", truth[:, c])):
            if whole.any():
                out[f"{name}[{label}]"] = wilson(hits, int(whole.sum()))
        f1 = _f1(given[:, [c]], truth[:, [c]])
        if f1 is not None:
            out[f"f1[{label}]"] = f1
    return out


def _f1(given: Table, truth: Table) -> Estimate | None:
    """F1 of one class from people's answers alone, (n, 1) each; None where the sample does not hold it."""
    if len(truth) < 2:
        return None
    none = np.zeros((0, 1))
    found = per_class(truth, given, np.zeros(truth.shape), none, none, 1)[0].f1
    return None if found is None else Estimate(*found[:4])


def _single(function: Callable[..., float]) -> Callable[[Table, Table], float]:
    return lambda given, truth: function(truth.argmax(axis=1), given.argmax(axis=1), given.shape[1])


_OVER_ITEMS: dict[str, dict[str, Callable[[Table, Table], float]]] = {
    "single": {"macro_f1": _single(agreement.macro_f1), "kappa": _single(agreement.cohen_kappa)},
    "multi": {
        "macro_f1": lambda given, truth: agreement.multilabel_macro_f1(truth, given),
        "micro_f1": lambda given, truth: agreement.multilabel_micro_f1(truth, given),
        "kappa": lambda given, truth: float(
            np.mean(
                [
                    agreement.cohen_kappa(truth[:, c].astype(int), given[:, c].astype(int), 2)
                    for c in range(truth.shape[1])
                ]
            )
        ),
    },
}


def _resampled(
    function: Callable[[Table, Table], float], given: Table, truth: Table, rng: np.random.Generator
) -> Estimate | None:
    """Bootstrap of a measure, or None where the sample is too small for it to be defined."""
    try:
        return bootstrap(function, given, truth, rng=rng, resamples=RESAMPLES)
    except ValueError:
        # One item, or a measure undefined on most resamples: no number is better than a false one.
        return None
