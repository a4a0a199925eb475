from collections import Counter

import pytest

from medgen3d.artifacts.planned_case import plan_case
from medgen3d.config.experiment import CHAIN

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
