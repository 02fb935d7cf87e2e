"""Which of several models to ask about which items: each model's error in each cluster, against its price."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

STRENGTHS = (5.0, 20.0, 80.0, math.inf)
"""Answers' worth of its overall error that a model brings into every cluster; infinite: clusters say nothing.
With 5 alone, as specified, routing among models whose errors follow no cluster lost 3 points to the best of
them; chosen by answers left out it loses less than 1 (`tests/benchmarks/uniroute.py`)."""


def cluster_errors(
    wrong: ArrayLike,
    clusters: ArrayLike,
    n_clusters: int,
    *,
    strength: float = STRENGTHS[0],
    without: int | None = None,
) -> NDArray[np.float64]:
    """Each model's error in each cluster, drawn towards its overall error where people answered few items.

    With n_k validation items in a cluster, e_k of them wrong on average, and e wrong overall it is
    (n_k e_k + s e) / (n_k + s).

    Args:
        wrong: (m, v) bool, m models on v validation items, v >= 1.
        clusters: (v,) int in 0..n_clusters - 1.
        n_clusters: K.
        strength: s, above 0; infinite for the overall error everywhere.
        without: a validation item to leave out: its own answer must not decide who is asked about it.

    Returns:
        (m, K) in [0, 1].

    Raises:
        ValueError: shapes differ, no validation item is left, or a cluster or s is outside its range.

    Source: Jitkrittum et al. 2025 (UniRoute); the shrinkage is ours.

    Example:
        >>> cluster_errors([[0, 0, 1, 1]], [0, 0, 1, 1], 3).round(3).tolist()
        [[0.357, 0.643, 0.5]]
    """
    failed, place = np.asarray(wrong, np.float64), np.asarray(clusters, np.int64)
    if failed.ndim != 2 or place.shape != failed.shape[1:]:
        raise ValueError(f"Errors must be (m, v) and clusters (v,), got {failed.shape} and {place.shape}.")
    if without is not None:
        failed, place = np.delete(failed, without, axis=1), np.delete(place, without)
    if not len(place) or not ((place >= 0) & (place < n_clusters)).all() or not strength > 0:
        raise ValueError(f"Clusters of one item or more must lie in 0..{n_clusters - 1}, strength above 0.")
    overall = failed.mean(axis=1, keepdims=True)
    if math.isinf(strength):
        return np.repeat(overall, n_clusters, axis=1)
    inside = np.eye(n_clusters)[place]
    return np.asarray((failed @ inside + strength * overall) / (inside.sum(axis=0) + strength), np.float64)


def best_strength(
    wrong: ArrayLike, clusters: ArrayLike, n_clusters: int, prices: ArrayLike, weight: float
) -> float:
    """The strength with which items left out in turn are routed at the least error + weight x price.

    Args:
        wrong: as in `cluster_errors`, v >= 2, and so are the others.
        clusters: of the validation items.
        n_clusters: K.
        prices: see `choose`.
        weight: see `choose`.

    Returns:
        One of `STRENGTHS`; of equals the strongest.

    Raises:
        ValueError: as in `cluster_errors` and `choose`.

    Example:
        >>> best_strength([[0, 0, 0, 0], [1, 0, 1, 0]], [0, 1, 0, 1], 2, [1.0, 1.0], 0.0)
        inf
    """
    failed, place = np.asarray(wrong, np.float64), np.asarray(clusters, np.int64)
    share = relative(prices)
    losses = []
    for strength in STRENGTHS:
        loss = 0.0
        for i, k in enumerate(place):
            errors = cluster_errors(failed, place, n_clusters, strength=strength, without=i)[:, [k]]
            m = int(choose(errors, prices, weight)[0])
            loss += failed[m, i] + (0.0 if math.isinf(weight) else weight * share[m])
        losses.append(round(loss, 9))
    return min(zip(losses, STRENGTHS, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]


def relative(prices: ArrayLike) -> NDArray[np.float64]:
    """(m,) prices of a call over that of the dearest model, in [0, 1]; all 0 where all are free.

    Args:
        prices: (m,) dollars a call, finite and at least 0.

    Raises:
        ValueError: a price is negative or not finite, or there is none.
    """
    given = np.asarray(prices, np.float64)
    if given.ndim != 1 or not len(given) or not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError("Prices must be (m,), m >= 1, finite and at least 0.")
    return given / given.max() if given.max() > 0 else given


def choose(errors: ArrayLike, prices: ArrayLike, weight: float) -> NDArray[np.int64]:
    """The model to ask for each column of errors: the least error + weight x relative price.

    At weight 1 the dearest model has to be right on all that a free one gets wrong; an infinite weight asks
    the cheapest. Of equals the cheapest is asked, then the first.

    Args:
        errors: (m, K) in [0, 1].
        prices: (m,) dollars a call; see `relative`.
        weight: at least 0.

    Returns:
        (K,) places in 0..m - 1.

    Raises:
        ValueError: lengths differ, or weight is negative.

    Source: Jitkrittum et al. 2025.

    Example:
        >>> choose([[0.1, 0.4], [0.2, 0.2]], [1.0, 0.1], 0.0).tolist()
        [0, 1]
    """
    found, share = np.asarray(errors, np.float64), relative(prices)
    if found.ndim != 2 or len(found) != len(share) or not weight >= 0:
        raise ValueError(f"{found.shape} errors, {len(share)} prices and weight {weight} do not fit.")
    price = share[:, None]
    loss = np.broadcast_to(price, found.shape) if np.isinf(weight) else found + weight * price
    # The cheapest of equals: prices break ties of losses that differ by rounding alone.
    tied = loss <= loss.min(axis=0) + 1e-12
    return np.asarray(np.where(tied, price, np.inf).argmin(axis=0), np.int64)
