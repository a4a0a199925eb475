import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d_stages.diffusion.schedule import cosine_signal_kept, visited_steps


def test_the_cosine_schedule_has_the_values_of_its_equation():
    # Nichol and Dhariwal, eq. 17, with s = 0.008: cos((0.5 + s) / (1 + s) * pi / 2)^2 / cos(s / (1 + s) * pi / 2)^2.
    # (0.5 + 0.008) / 1.008 = 0.503968, times 90 degrees = 45.3571, cos^2 = 0.493767; cos^2(0.714286) = 0.999845.
    kept = cosine_signal_kept(1000)
    assert kept.shape == (1000,)
    assert float(kept[499]) == pytest.approx(0.493767 / 0.999845, abs=1e-5)
    assert float(kept[0]) == pytest.approx(1 - 4.12e-5, abs=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 10, 1000, 5000])
def test_the_signal_never_grows_and_is_never_all_or_nothing(steps):
    kept = cosine_signal_kept(steps)
    assert ((kept > 0) & (kept < 1)).all()
    assert (kept.diff() <= 0).all()
    assert float(kept[-1]) == pytest.approx(1e-5)
    assert all(math.isfinite(math.log(value / (1 - value))) for value in kept.tolist())


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [(9, 4, [9, 6, 3, 0]), (9, 3, [9, 5, 0]), (9, 1, [9]), (0, 1, [0]), (3, 4, [3, 2, 1, 0]), (999, 2, [999, 0])],
)
def test_steps_are_visited_evenly_down_to_0(first, count, expected):
    assert visited_steps(first, count) == expected


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [(9, 4, [9, 7, 4, 2]), (9, 3, [9, 6, 3]), (9, 1, [9]), (0, 1, [0]), (3, 4, [3, 2, 1, 0]), (999, 2, [999, 499])],
)
def test_or_so_that_the_next_one_would_be_the_clean_sample(first, count, expected):
    assert visited_steps(first, count, down_to_0=False) == expected


@given(
    st.integers(0, 2000).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, first + 1))),
    st.booleans(),
)
def test_visited_steps_differ_fall_and_have_gaps_that_differ_by_at_most_one(drawn, down_to_0):
    first, count = drawn
    steps = visited_steps(first, count, down_to_0=down_to_0)
    ends = [*steps] if down_to_0 else [*steps, -1]
    gaps = {before - after for before, after in itertools.pairwise(ends)}
    assert (len(steps), steps[0]) == (count, first)
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
    assert count == 1 or not down_to_0 or steps[-1] == 0


@pytest.mark.parametrize(("first", "count"), [(9, 0), (9, 11), (0, 2)])
def test_more_steps_than_there_are_and_no_steps_are_refused(first, count):
    with pytest.raises(ValueError, match=f"between 1 and {first + 1} steps .* got {count}"):
        visited_steps(first, count)
