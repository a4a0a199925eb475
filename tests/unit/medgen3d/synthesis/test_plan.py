from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.config.experiment import CHAIN
from medgen3d.synthesis.plan import numbers_in, plan_case, wanted_by_batch

SHAPES = [(30, 50, 40, 3), (35, 48, 36, 1)]


def test_a_case_does_not_depend_on_how_many_or_in_which_order_cases_are_planned():
    forwards = {number: plan_case(5, number, SHAPES) for number in range(10)}
    backwards = {number: plan_case(5, number, SHAPES) for number in reversed(range(40))}
    assert all(backwards[number] == case for number, case in forwards.items())


def test_the_order_in_which_training_sizes_are_listed_does_not_matter():
    assert plan_case(5, 3, SHAPES) == plan_case(5, 3, SHAPES[::-1])


def test_every_stage_of_every_case_of_every_run_has_a_stream_of_its_own():
    seeds = [plan_case(run, number, SHAPES).seeds[stage] for run in range(3) for number in range(20) for stage in CHAIN]
    assert len(set(seeds)) == len(seeds) == 180


def test_sizes_are_drawn_as_often_as_they_occur_in_training():
    drawn = Counter(plan_case(0, number, SHAPES).shape for number in range(2000))
    assert drawn.keys() == {(30, 50, 40), (35, 48, 36)}
    assert drawn[30, 50, 40] == pytest.approx(1500, abs=80)  # four standard deviations


def test_case_ids_sort_by_number():
    assert plan_case(0, 7, SHAPES).case_id == "syn_00007"
    assert plan_case(0, 123456, SHAPES).case_id == "syn_123456"


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
