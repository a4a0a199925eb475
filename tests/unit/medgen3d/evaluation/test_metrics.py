import numpy as np
import pytest

from medgen3d.evaluation.metrics import difference_metric, distance_metric


def rng():
    return np.random.default_rng(0)


def test_constant_groups_two_apart_have_a_distance_of_two_and_a_floor_of_zero_that_is_explained():
    metric = distance_metric("a.b", "B", (np.full(8, 5.0), np.full(3, 7.0)), rng(), unit="ml")

    assert (metric.value, metric.floor, metric.ratio) == (2, 0, None)
    assert (metric.num, metric.unit, metric.interval) == (3, "ml", (2, 2))
    assert "floor is 0" in metric.note


def test_groups_drawn_alike_lie_at_the_floor_and_groups_two_deviations_apart_far_above():
    values = rng().normal(size=(3, 100))
    assert distance_metric("a.b", "B", (values[0], values[1]), rng()).ratio == pytest.approx(1, abs=0.5)
    assert distance_metric("a.b", "B", (values[0], values[2] + 2), rng()).ratio > 5


def test_cases_without_the_measure_are_left_out():
    metric = distance_metric("a.b", "B", (np.array([1.0, np.nan, 1.0]), np.array([np.nan, 4.0, np.nan])), rng())
    assert (metric.value, metric.num) == (3, 1)


@pytest.mark.parametrize("make", [distance_metric, difference_metric])
def test_a_measure_that_no_case_of_a_kind_has_is_no_metric_and_says_which(make):
    some, none = np.array([1.0, 2.0]), np.full(2, np.nan)

    assert make("a.b", "B", (none, some), rng()).note == "It was found in no real case."
    missing = make("a.b", "B", (some, none), rng())
    assert (missing.value, missing.note) == (None, "It was found in no synthetic case.")


def test_a_difference_is_of_the_means_over_all_cases_inside_its_interval():
    groups = np.array([1.0, 1.0, 1.0, 3.0]), np.array([0.0, 1.0, np.nan])
    signed = difference_metric("a.b", "B", groups, rng())
    absolute = difference_metric("a.b", "B", groups, rng(), absolute=True)

    assert (signed.value, absolute.value) == (-1, 1)
    assert signed.interval[0] < -1 < signed.interval[1]
    assert absolute.interval[0] >= 0
    assert (signed.num, signed.num_of) == (2, "synthetic cases, 4 real")
