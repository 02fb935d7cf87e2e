"""Nearest rows: brute force, order of rows, equal rows, and a recall that is true."""

import importlib.util

import numpy as np
import pytest

from llmal.select import neighbours
from llmal.select.neighbours import nearest


def rng(seed=0):
    return np.random.default_rng(seed)


def unit(n, d=12, seed=0):
    x = rng(seed).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute(vectors, k, among=None):
    """Distances one row at a time in float64, ties to the lowest row."""
    x = vectors.astype(np.float64)
    others = np.arange(len(x)) if among is None else np.unique(among)
    rows, lengths = [], []
    for i in range(len(x)):
        gap = np.sqrt(((x[others] - x[i]) ** 2).sum(axis=1))
        gap[others == i] = np.inf
        order = np.lexsort((others, gap))[:k]
        rows.append(others[order])
        lengths.append(gap[order])
    return np.array(rows), np.array(lengths)


def made(kind):
    vectors = unit(600)
    if kind == "duplicates":
        vectors[300:] = vectors[:300]
    if kind == "zeros":
        vectors[::3] = 0
    if kind == "rounded":
        vectors = np.round(vectors * 3)
    if kind == "one":
        vectors[:] = vectors[0]
    if kind == "near":
        vectors[300:] = vectors[:300] + rng(1).normal(size=(300, 12)).astype(np.float32) * 1e-5
    return vectors


@pytest.mark.parametrize("blocks", [(1024, 2048), (64, 48)])
@pytest.mark.parametrize("kind", ["random", "duplicates", "zeros", "rounded", "one", "near"])
def test_nearest_equals_brute_force(monkeypatch, kind, blocks):
    monkeypatch.setattr(neighbours, "ROWS", blocks[0])
    monkeypatch.setattr(neighbours, "COLUMNS", blocks[1])
    vectors = made(kind)
    found = nearest(vectors, 9, rng())
    rows, distance = brute(vectors, 9)
    assert (found.rows == rows).all()
    assert found.distance == pytest.approx(distance, abs=1e-5)
    assert found.recall is None
    assert found.rows.dtype == np.int32
    assert found.distance.dtype == np.float32


def test_nearest_among_some_and_of_some():
    vectors, among, of = unit(400), np.array([7, 3, 100, 250, 251, 399]), np.array([250, 0, 7, 253])
    found = nearest(vectors, 4, rng(), among=among, of=of)
    rows, distance = brute(vectors, 4, among)
    assert (found.rows == rows[of]).all()
    assert found.distance == pytest.approx(distance[of], abs=1e-5)


@pytest.mark.parametrize(("n", "k", "width"), [(30, 40, 29), (2, 5, 1), (1, 3, 0), (0, 3, 0), (9, 0, 0)])
def test_fewer_others_than_asked_for(n, k, width):
    found = nearest(unit(max(n, 1))[:n], k, rng())
    assert found.rows.shape == found.distance.shape == (n, width)
    if width:
        assert (found.rows == brute(unit(n), width)[0]).all()


def test_rows_in_another_order_have_the_same_neighbours():
    vectors, order = unit(500), rng(5).permutation(500)
    turned = nearest(vectors[order], 6, rng())
    assert (order[turned.rows] == nearest(vectors, 6, rng()).rows[order]).all()


def test_nearest_of_mapped_rows(tmp_path):
    np.save(tmp_path / "x.npy", unit(300))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (nearest(mapped, 5, rng()).rows == nearest(unit(300), 5, rng()).rows).all()


@pytest.fixture(params=["graph", "cells"])
def approximate(request, monkeypatch):
    """Small pools are searched as large ones are."""
    if request.param == "graph" and importlib.util.find_spec("faiss") is None:
        pytest.skip("faiss is not installed")
    if request.param == "cells":
        monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 100)
    monkeypatch.setattr(neighbours, "CELL_ROWS", 20)
    monkeypatch.setattr(neighbours, "CELLS", 4)
    monkeypatch.setattr(neighbours, "LOOK", 4)


def test_recall_is_the_share_of_true_neighbours_found(monkeypatch, approximate):
    vectors = unit(1500)
    monkeypatch.setattr(neighbours, "PROBED", len(vectors))
    found = nearest(vectors, 8, rng())
    rows, distance = brute(vectors, 8)
    share = np.mean([len(set(a) & set(b)) / 8 for a, b in zip(found.rows, rows, strict=True)])
    assert found.recall == pytest.approx(share, abs=1e-9)
    assert 0.3 < found.recall < 1
    x = vectors.astype(float)
    gap = np.linalg.norm(x[:, None] - x[found.rows], axis=2)
    assert found.distance == pytest.approx(gap, abs=1e-5)
    assert (np.diff(found.distance, axis=1) >= 0).all()
    assert (found.rows != np.arange(len(vectors))[:, None]).all()
    assert all(len(set(row)) == 8 for row in found.rows)


def test_approximate_search_is_repeatable(approximate):
    vectors = unit(700)
    first, second = nearest(vectors, 5, rng(3)), nearest(vectors, 5, rng(3))
    assert (first.rows == second.rows).all()
    assert first.recall == second.recall


def test_approximate_search_over_equal_rows_and_zeros(approximate):
    vectors = unit(600)
    vectors[100:300] = vectors[5]
    vectors[300:400] = 0
    found = nearest(vectors, 6, rng())
    assert np.isfinite(found.distance).all()
    assert (found.rows[350:400] < 310).all(), "equal rows: the lowest of them"
    assert (found.rows != np.arange(len(vectors))[:, None]).all()


def test_approximate_search_among_some(approximate):
    vectors, among = unit(900), np.arange(0, 900, 2)
    found = nearest(vectors, 4, rng(), among=among)
    assert (found.rows % 2 == 0).all()
