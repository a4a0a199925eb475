from hypothesis import given
from hypothesis import strategies as st

from medgen3d.synthesis.plan import numbers_in, wanted_by_batch


@given(count=st.integers(1, 100), width=st.integers(1, 20), done=st.sets(st.integers(0, 120)))
def test_exactly_the_missing_cases_are_wanted_each_in_the_batch_of_its_number(count, width, done):
    wanted = wanted_by_batch(count, width, done)
    listed = [number for numbers in wanted.values() for number in numbers]
    assert sorted(listed) == sorted(set(range(count)) - done)
    assert all(set(numbers) <= set(numbers_in(batch, width)) for batch, numbers in wanted.items())


def test_a_batch_of_which_everything_is_done_is_not_drawn():
    assert wanted_by_batch(10, 4, {4, 5, 6, 7}) == {0: [0, 1, 2, 3], 2: [8, 9]}


def test_a_batch_holds_the_same_cases_whatever_is_wanted_of_it():
    assert list(numbers_in(2, 4)) == [8, 9, 10, 11]
