import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medgen3d_stages.diffusion.schedule import cosine_signal_kept, even_log_snr_steps, even_steps


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
    [(9, 4, [9, 7, 4, 2]), (9, 3, [9, 6, 3]), (9, 1, [9]), (0, 1, [0]), (3, 4, [3, 2, 1, 0]), (999, 2, [999, 499])],
)
def test_even_steps_end_where_the_next_one_would_be_the_clean_sample(first, count, expected):
    assert even_steps(first, count) == expected


@given(st.integers(0, 2000).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, first + 1))))
def test_even_steps_differ_fall_and_have_gaps_that_differ_by_at_most_one(drawn):
    first, count = drawn
    steps = even_steps(first, count)
    gaps = {before - after for before, after in itertools.pairwise([*steps, -1])}
    assert (len(steps), steps[0]) == (count, first)
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("first", "count"), [(9, 0), (9, 11), (0, 2)])
def test_more_steps_than_there_are_and_no_steps_are_refused(first, count):
    with pytest.raises(ValueError, match=f"between 1 and {first + 1} steps .* got {count}"):
        even_steps(first, count)


def test_steps_of_even_log_snr_leave_the_same_factor_of_noise_each():
    # Signal-to-noise ratios 1, 4, 16, 64 and 256 where kept is 1/2, 4/5, 16/17, 64/65 and 256/257.
    kept = torch.tensor([256 / 257, 64 / 65, 16 / 17, 4 / 5, 1 / 2], dtype=torch.float64)
    assert even_log_snr_steps(4, 0, 3, kept) == [4, 2, 0]
    assert even_log_snr_steps(3, 1, 3, kept) == [3, 2, 1]
    assert even_log_snr_steps(4, 0, 2, kept) == [4, 0]
    assert even_log_snr_steps(4, 0, 1, kept) == [4]


def test_on_the_cosine_schedule_three_steps_nearly_are_a_geometric_series():
    # There noise over signal nearly grows as the step does: 299 / 109 = 2.7, 109 / 34 = 3.2.
    assert even_log_snr_steps(299, 34, 3, cosine_signal_kept(1000)) == [299, 109, 34]


@given(
    st.integers(0, 300).flatmap(
        lambda first: st.integers(0, first).flatmap(
            lambda last: st.tuples(st.just(first), st.just(last), st.integers(1, first - last + 1))
        )
    )
)
def test_steps_of_even_log_snr_differ_fall_and_stay_between_the_two_ends(drawn):
    first, last, count = drawn
    steps = even_log_snr_steps(first, last, count, cosine_signal_kept(1000))
    assert (len(steps), steps[0]) == (count, first)
    assert all(before > after for before, after in itertools.pairwise(steps))
    assert count == 1 or steps[-1] == last


def test_a_walk_over_the_clamped_end_of_the_schedule_begins_where_it_is_told():
    kept = cosine_signal_kept(1000)
    assert kept[-1] == kept[-3]
    assert even_log_snr_steps(999, 0, 1, kept) == [999]
    assert even_log_snr_steps(999, 0, 1000, kept) == list(range(999, -1, -1))


def test_a_walk_goes_down():
    with pytest.raises(ValueError, match="the last step must not be noisier than the first, 7, got 9"):
        even_log_snr_steps(7, 9, 1, cosine_signal_kept(10))


@pytest.mark.parametrize("count", [0, 4])
def test_more_steps_than_lie_between_the_two_ends_are_refused(count):
    with pytest.raises(ValueError, match=f"between 1 and 3 steps lie from step 9 to step 7, got {count}"):
        even_log_snr_steps(9, 7, count, cosine_signal_kept(10))
