"""Usefulness metrics, each worked out by hand."""

import io

import pytest
from PIL import Image

from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.usefulness_results import Size, Trial, UsefulnessResults
from medgen3d.evaluation.usefulness import PLOT, t_interval, usefulness

PIPELINE = EvaluatedPipeline(name="knee", version=1, weights_sha256={}, config_hash="c", dataset_digest="d")
T_2 = 4.302652729911275  # 97.5 % quantile of Student's t with 2 degrees of freedom, from printed tables 4.303


def trials(arm: str, num_cases: int, *dice: float) -> list[Trial]:
    """One trial per seed, whose labels lie 0.1 above and below."""
    return [
        Trial(arm=arm, num_cases=num_cases, seed=seed, dice={"bone": each + 0.1, "disc": each - 0.1}, seconds=1)
        for seed, each in enumerate(dice)
    ]


def study(*groups: list[Trial]) -> UsefulnessResults:
    size = {"dataset_digest": "d", "num_pairs": 30, "pairs_seed": 0, "pipeline": PIPELINE}
    return UsefulnessResults(
        dataset="knee",
        dataset_digest="d",
        phantom=True,
        labels=["bone", "disc"],
        num_train=20,
        test_cases=["a", "b", "c"],
        seed=0,
        settings={"real_share": 0.5},
        sizes=[Size(num_cases=number, **size) for number in (10, 20)],
        trials=[trial for group in groups for trial in group],
    )


def metrics(results: UsefulnessResults) -> dict:
    return {metric.name: metric for metric in usefulness(results).section.metrics}


def test_the_ratio_is_that_of_the_mean_dice_with_all_real_cases():
    found = metrics(study(trials("real", 20, 0.8, 0.6, 0.7), trials("synthetic", 20, 0.4, 0.6, 0.6)))
    assert found["usefulness.trtr"].value == pytest.approx(2.1 / 3)
    assert found["usefulness.tstr"].value == pytest.approx(1.6 / 3)
    ratio = found["usefulness.tstr_ratio"]
    assert ratio.value == pytest.approx(1.6 / 2.1)
    assert (ratio.num, ratio.num_of) == (3, "seeds")
    # Ratios of the seeds: 1/2, 1 and 6/7, whose mean is 11/14 and whose squared distances from it sum to 26/196.
    deviation = (26 / 196 / 2) ** 0.5
    assert ratio.interval == pytest.approx((11 / 14 - T_2 * deviation / 3**0.5, 11 / 14 + T_2 * deviation / 3**0.5))


def test_a_gain_is_the_difference_within_a_seed_and_its_interval_that_of_the_differences():
    # Seeds differ by much, the arms within a seed always by 0.04 +- 0.01.
    found = metrics(study(trials("real", 10, 0.3, 0.5, 0.7), trials("real+synthetic", 10, 0.33, 0.54, 0.75)))
    gain = found["usefulness.gain.10"]
    assert gain.value == pytest.approx(0.04)
    reach = T_2 * 0.01 / 3**0.5
    assert gain.interval == pytest.approx((0.04 - reach, 0.04 + reach))


def test_seeds_that_only_one_arm_has_finished_are_left_out_of_differences():
    found = metrics(study(trials("real", 10, 0.5, 0.9), trials("real+synthetic", 10, 0.6)))
    assert found["usefulness.gain.10"].value == pytest.approx(0.1)
    assert (found["usefulness.gain.10"].num, found["usefulness.gain.10"].interval) == (1, None)


def test_what_has_not_been_measured_has_no_value_and_says_so():
    found = metrics(study(trials("real", 10, 0.5), trials("real+synthetic", 10, 0.6)))
    for name in ("usefulness.tstr_ratio", "usefulness.tstr", "usefulness.trtr", "usefulness.gain.20"):
        assert found[name].value is None
        assert "finished" in found[name].note


def test_a_segmenter_that_finds_nothing_leaves_no_ratio():
    nothing = [Trial(arm="real", num_cases=20, seed=0, dice={"bone": 0, "disc": 0}, seconds=1)]
    assert metrics(study(nothing, trials("synthetic", 20, 0.5)))["usefulness.tstr_ratio"].value is None


def test_a_study_without_trials_is_a_section_that_was_not_run():
    found = usefulness(study())
    assert "no trial" in found.section.not_run
    assert (found.section.metrics, found.pictures) == ([], {})


def test_the_table_has_a_row_per_arm_and_size_with_the_dice_of_every_label():
    found = usefulness(
        study(trials("real", 10, 0.5, 0.7), trials("real+synthetic", 10, 0.8), trials("synthetic", 20, 0.4))
    )
    (table,) = found.section.tables
    assert table.columns[-2:] == ["bone", "disc"]
    shown = [[cell if not isinstance(cell, float) else round(cell, 6) for cell in row] for row in table.rows]
    assert shown == [
        ["real", 10, 0, 2, 0.6, round(0.02**0.5, 6), 0.7, 0.5],
        ["real+synthetic", 10, 30, 1, 0.8, None, 0.9, 0.7],
        ["synthetic", 20, 30, 1, 0.4, None, 0.5, 0.3],
    ]


def test_the_curve_is_a_picture_that_is_told_in_words():
    found = usefulness(study(trials("real", 10, 0.5), trials("real", 20, 0.75), trials("synthetic", 20, 0.25)))
    (picture,) = found.section.pictures
    assert Image.open(io.BytesIO(found.pictures[PLOT])).width > 500
    assert picture.file == PLOT
    assert picture.alt.endswith("real: 0.500 with 10, 0.750 with 20; synthetic: 0.250 with 20")


def test_the_interval_of_a_mean_needs_two_values_and_is_students():
    assert t_interval([0.5]) is None
    assert t_interval([]) is None
    # Two values: 1 degree of freedom, whose quantile is tan(0.475 pi) = 12.706; half their distance is the deviation.
    assert t_interval([0.0, 2.0]) == pytest.approx((1 - 12.7062, 1 + 12.7062), rel=1e-4)
