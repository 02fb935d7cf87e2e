"""The embedding map: a sample of the corpus on the plane on which its labels lie farthest apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmal.context import Context
from llmal.page.overview import Given
from llmal.records import LabelSchema
from llmal.store.store import Store

POINTS = 2000
"""Most items on the map: more only cover each other."""

STRONGEST = 10
"""Directions of the vectors from which the plane is made. In all 384 of them labels drawn at random would
seem to lie apart."""

_DIGITS = 3

_TURNS = 6
"""Iterations after which the directions no longer move visibly."""


def plane(
    store: Store, ctx: Context, vectors: str, schema: LabelSchema, given: Given
) -> dict[str, Any] | None:
    """Places of at most `POINTS` items, with label and who gave it; None before there are vectors.

    Returns:
        `points`: [x, y, column of the first label or -1, index into `sources`]; `shown`, `of`; `kept`: the
        share of the vectors' variance that the plane shows.
    """
    active = store.active()
    if len(active) < 3 or store.covered(vectors) <= active[-1]:
        return None
    chosen = active
    if len(active) > POINTS:
        drawn = ctx.rng("map").permutation(len(active))[:POINTS]
        chosen = [active[i] for i in sorted(drawn)]
    (routes, answers), column = given, schema.columns()
    labels, sources = [], []
    for s in chosen:
        said = answers.get(s, routes[s].labels if s in routes else ())
        labels.append(column.get(said[0], -1) if said else -1)
        who = "human" if s in answers else (routes[s].who if s in routes else "open")
        sources.append("open" if who == "person" else who)
    places, kept = placed(np.asarray(store.load(vectors)[chosen], np.float64), np.array(labels))
    if places is None:
        return None
    order = ["human", "llm", "student", "open"]
    points = [
        [round(float(x), _DIGITS), round(float(y), _DIGITS), label, order.index(who)]
        for (x, y), label, who in zip(places, labels, sources, strict=True)
    ]
    return {"points": points, "sources": order, "shown": len(points), "of": len(active), "kept": kept}


def placed(
    vectors: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64] | None, float]:
    """Places on the plane of the class means, within the strongest directions; the same for the same rows.

    Args:
        vectors: (n, d), n >= 3.
        labels: (n,) class of each row, -1 for none; with fewer than three classes the strongest directions
            fill the plane.

    Returns:
        (n, 2) in units of the largest spread, or None where all vectors are the same; and the share of the
        variance that the plane shows, in [0, 1].

    Source: principal components of the class means (Fisher 1936, Rao 1948), after a reduction by principal
    components as in Belhumeur et al. 1997.
    """
    centred = vectors - vectors.mean(axis=0)
    whole = float((centred**2).sum())
    if whole <= 0 or not np.isfinite(whole):
        return None, 0.0
    reduced = centred @ _strongest(centred)
    classes = [c for c in np.unique(labels) if c >= 0]
    means = np.array([reduced[labels == c].mean(axis=0) * np.sqrt((labels == c).sum()) for c in classes])
    # The means come first, the strongest directions fill up what they leave open.
    basis = np.eye(reduced.shape[1])
    if len(classes) > 1:
        apart = np.linalg.eigh(means.T @ means)[1][:, ::-1]
        basis = np.hstack([apart[:, : min(2, len(classes) - 1)], basis])
    axes = np.linalg.qr(basis)[0][:, :2]
    places = reduced @ axes
    if places.shape[1] < 2:
        places = np.hstack([places, np.zeros((len(places), 1))])
    kept = float((places**2).sum()) / whole
    # A direction has no sign of its own: the longest tail points right, and up.
    places *= np.where((places**3).sum(axis=0) < 0, -1.0, 1.0)
    return places / np.abs(places).max(), round(min(1.0, kept), 4)


def _strongest(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d, k) strongest directions, by subspace iteration: vectors may be very wide (Halko et al. 2011)."""
    width = min(STRONGEST + 10, *centred.shape)
    basis = np.random.default_rng(0).standard_normal((centred.shape[1], width))
    for _ in range(_TURNS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    within = centred @ basis
    turned = np.linalg.eigh(within.T @ within)[1][:, ::-1]
    return np.asarray(basis @ turned[:, :STRONGEST])
