"""Measures on cases that can be worked out by hand."""

import numpy as np
import pytest
from shapely import Polygon, box

from geosam.evaluation.measures import boundary_f, clicks_needed, intervals, iou, reliability


def test_iou():
    assert iou(box(0, 0, 10, 10), box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert iou(box(0, 0, 1, 1), box(0, 0, 1, 1)) == 1
    assert iou(Polygon(), box(0, 0, 1, 1)) == 0
    assert iou(Polygon(), Polygon()) == 0


def test_boundary_f_of_a_moved_square():
    truth = box(0, 0, 20, 20)
    assert boundary_f(truth, truth, (1, 3)).tolist() == [1, 1]
    assert boundary_f(Polygon(), truth, (1, 3)).tolist() == [0, 0]
    # Moved by 2: each of two sides lies 2 from the other outline; the two others lie on it but for
    # 2 px that stick out, of which the first 1 px is near enough.
    f_1, f_3 = boundary_f(box(2, 0, 22, 20), truth, (1, 3))
    near = (2 * 19 + 2 * 1) / 80  # two sides of 20 less 1 each, and the ends of one moved side
    assert f_1 == pytest.approx(near, abs=0.02)
    assert f_3 == 1


def test_boundary_f_is_the_harmonic_mean():
    truth, answer = box(0, 0, 30, 10), box(0, 0, 10, 10)
    # Of the answer all but the inner side (10 long, less 1 at each end) lies on the truth; of the
    # truth the first 10 px of the long sides, 1 px more each, and one short side.
    precision, recall = 32 / 40, 32 / 80
    wanted = 2 * precision * recall / (precision + recall)
    assert boundary_f(answer, truth, (1,))[0] == pytest.approx(wanted, abs=0.02)


def test_boundaries_of_holes_count():
    truth = box(0, 0, 20, 20) - box(5, 5, 15, 15)
    f_score = boundary_f(box(0, 0, 20, 20), truth, (1,))[0]
    precision, recall = 1, 80 / 120
    assert f_score == pytest.approx(2 * precision * recall / (precision + recall))


def test_clicks_needed():
    ious = np.array([[0.9, 0.1, 0.1], [0.2, 0.8, 0.1], [0.1, 0.2, 0.7]])
    needed, failed = clicks_needed(ious, 0.8)
    assert needed.tolist() == [1, 2, 3]
    assert failed.tolist() == [False, False, True]


def test_reliability():
    scores = np.array([0.81, 0.89, 0.3, 1.0])
    ious = np.array([0.6, 0.8, 0.3, 1.0])
    table, error = reliability(scores, ious)
    assert [(row["from"], row["answers"]) for row in table] == [(0.3, 1), (0.8, 2), (0.9, 1)]
    assert table[1]["mean_score"] == pytest.approx(0.85)
    assert table[1]["mean_iou"] == pytest.approx(0.7)
    assert error == pytest.approx(2 * 0.15 / 4)
    assert np.isnan(reliability(np.array([]), np.array([]))[1])


def test_intervals_hold_the_mean_and_shrink():
    rng = np.random.default_rng(1)
    few, many = rng.normal(0.5, 0.1, (20, 1)), rng.normal(0.5, 0.1, (2000, 1))
    for values in (few, many):
        low, high = intervals(values, 0)
        assert low < values.mean() < high
        width = 2 * 1.96 * values.std() / np.sqrt(len(values))
        assert high - low == pytest.approx(width, rel=0.15)
    assert (intervals(few, 0) == intervals(few, 0)).all()
    assert (intervals(np.ones((3, 2)), 0) == 1).all()
