"""The plan of a study: sizes within sizes, one registry per generator, and what may be gone on with."""

import pytest

from medgen3d.artifacts.prepared_set import PreparedSet, write_info
from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.usefulness_results import Size, Trial, write_usefulness
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.recipes.usefulness_study.plan import plan_study, results_so_far

PIPELINE = EvaluatedPipeline(name="blocks", version=1, weights_sha256={}, config_hash="c", dataset_digest="d")


@pytest.fixture
def plan(prepared, config, tmp_path):
    return lambda **choices: plan_study(prepared.root, tmp_path / "study", config, **choices)


def test_smaller_sizes_lie_within_larger_ones_and_all_is_every_training_case(plan, prepared):
    small, larger, whole = plan(sizes="4,2,all").sizes
    assert [size.num_cases for size in (small, larger, whole)] == [2, 4, 6]
    assert set(small.case_ids) < set(larger.case_ids) < set(whole.case_ids) == set(prepared.info.case_ids("train"))


def test_without_sizes_those_are_taken_for_which_there_are_cases(plan):
    assert [size.num_cases for size in plan().sizes] == [5, 6]


def test_a_size_that_is_named_twice_is_planned_once(plan):
    assert [size.num_cases for size in plan(sizes="6, 2,all,2").sizes] == [2, 6]


def test_the_generator_of_all_cases_is_trained_on_the_set_itself_and_the_others_on_a_folder_of_their_own(
    plan, prepared
):
    small, whole = plan(sizes="2,all").sizes
    assert small.prepared == small.folder / "prepared"
    assert small.folder.name == "n002"
    assert whole.prepared == prepared.root
    assert whole.pairs == whole.folder / "pairs"


def test_every_generator_has_a_registry_of_its_own_whatever_is_configured(plan, config):
    study = plan(sizes="2,4,all")
    uris = {size.storage.mlflow_uri for size in study.sizes}
    assert len(uris) == 3
    assert all(uri.startswith(f"sqlite:///{study.out}/n00") for uri in uris)


def test_only_the_size_with_all_cases_trains_on_pairs_alone_and_every_seed_comes_before_the_next(plan):
    trials = plan(sizes="2,all", num_seeds=2).trials
    shown = [(trial.seed, trial.size.num_cases, trial.arm) for trial in trials]
    one_seed = [(2, "real"), (2, "real+synthetic"), (6, "real"), (6, "synthetic"), (6, "real+synthetic")]
    assert shown == [(seed, *each) for seed in (0, 1) for each in one_seed]


def test_there_are_as_many_pairs_as_training_cases_unless_a_number_is_given(plan):
    assert (plan().num_pairs, plan(num_pairs=9).num_pairs) == (6, 9)


def test_a_named_pipeline_stands_for_the_generator_of_all_cases_only(plan):
    small, whole = plan(sizes="2,all", pipeline="blocks@3").sizes
    assert (small.pipeline, whole.pipeline) == (None, "blocks@3")
    with pytest.raises(ConfigError, match="add all to --sizes"):
        plan(sizes="2", pipeline="blocks@3")


@pytest.mark.parametrize("sizes", ["0", "7", "2,,4", "two", "-1", ""])
def test_sizes_that_cannot_be_are_refused(plan, sizes):
    with pytest.raises(ConfigError, match="numbers from 1 to 6"):
        plan(sizes=sizes)


@pytest.mark.parametrize("choices", [{"num_seeds": 0}, {"num_pairs": 0}])
def test_numbers_below_one_are_refused(plan, choices):
    with pytest.raises(ConfigError, match="at least 1"):
        plan(**choices)


def test_a_set_without_test_cases_is_refused(prepared, config, tmp_path):
    (tmp_path / "untested").mkdir()
    trained = [entry for entry in prepared.info.cases if entry.split != "test"]
    write_info(tmp_path / "untested", prepared.info.model_copy(update={"cases": trained}))
    with pytest.raises(DataError, match="6 training and 0 test cases"):
        plan_study(tmp_path / "untested", tmp_path / "study", config)


def test_planning_writes_nothing(plan, tmp_path):
    results_so_far(plan())
    assert not (tmp_path / "study").exists()


def test_a_study_goes_on_with_the_trials_that_are_missing(plan):
    study = plan(sizes="2,all", num_seeds=1)
    done = [Trial(arm=arm, num_cases=2, seed=0, dice={"bright": 0.5}, seconds=1) for arm in ("real", "real+synthetic")]
    write_usefulness(study.out, study.nothing_yet.with_trials(done))
    left = study.unfinished(results_so_far(study))
    assert [(trial.size.num_cases, trial.arm) for trial in left] == [
        (6, "real"),
        (6, "synthetic"),
        (6, "real+synthetic"),
    ]
    more = plan(sizes="2", num_seeds=2)
    assert [trial.seed for trial in more.unfinished(results_so_far(more))] == [1, 1]


def test_a_study_of_other_settings_is_not_gone_on_with(plan, prepared, config, tmp_path):
    study = plan()
    write_usefulness(study.out, study.nothing_yet)
    segmenter = config.training.segmenter.model_copy(update={"steps": 7})
    training = config.training.model_copy(update={"segmenter": segmenter})
    with pytest.raises(DataError, match=r"training\.segmenter\.steps 4, but now it is 7\. .* choose another --out"):
        results_so_far(plan_study(prepared.root, study.out, config.model_copy(update={"training": training})))
    with pytest.raises(DataError, match="study with seed 0, but now it is 1"):
        results_so_far(plan_study(prepared.root, study.out, config.model_copy(update={"seed": 1})))


def test_trials_with_another_number_of_pairs_are_not_mixed(plan):
    study = plan(sizes="2,4", num_pairs=5)
    size = Size(num_cases=2, dataset_digest="d", num_pairs=5, pairs_seed=0, pipeline=PIPELINE)
    write_usefulness(study.out, study.nothing_yet.with_size(size))
    with pytest.raises(DataError, match="5 synthetic pairs for 2 cases, but now 8"):
        results_so_far(plan(sizes="2,4", num_pairs=8))
    assert results_so_far(plan(sizes="4", num_pairs=8)).sizes == [size]


def test_how_pairs_come_is_told_from_what_is_there(plan, write_pairs, prepared):
    study = plan(sizes="2,all", num_pairs=3, pipeline="blocks@3")
    small, whole = study.sizes
    assert study.how_pairs_come(small) == "3 drawn by a generator trained on these cases (4 + 4 + 4 steps)"
    write_pairs(whole.pairs, prepared.digest, 2)
    assert study.how_pairs_come(whole) == "1 drawn by blocks@3"
    write_pairs(small.pairs, "d", 3)
    assert study.how_pairs_come(small) == "are there"


def test_the_results_say_what_the_segmenters_are_tested_on(plan, prepared):
    nothing = plan().nothing_yet
    assert nothing.test_cases == ["held_2", "held_3"]
    assert nothing.labels == ["bright", "dark"]
    assert (nothing.num_train, nothing.dataset_digest) == (6, PreparedSet(prepared.root).digest)
    assert nothing.settings["real_share"] == 0.5
