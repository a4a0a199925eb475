"""The plan of an evaluation: whatever does not belong to the synthetic set is refused before anything is measured."""

import shutil

import pytest

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.usefulness_results import Size, UsefulnessResults, write_usefulness
from medgen3d.config.experiment import CHAIN, ExperimentConfig, StorageConfig
from medgen3d.core.errors import ConfigError
from medgen3d.recipes.evaluate import plan_evaluation, sections_of
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.pipeline import create_pipeline
from medgen3d.registry.tracking import Tracking, start_run

WEIGHTS = {"refiner": "f" * 64}


@pytest.fixture(scope="module")
def config(tmp_path_factory, empty_database) -> ExperimentConfig:
    root = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, root)
    return ExperimentConfig(storage=StorageConfig(root=root))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make_prepared):
    return make_prepared(tmp_path_factory.mktemp("sets") / "prepared")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, make_synthetic, prepared):
    digest = PreparedSet(prepared).digest
    return make_synthetic(tmp_path_factory.mktemp("sets") / "pairs", dataset_digest=digest, weights_sha256=WEIGHTS)


@pytest.fixture
def plan(tmp_path, prepared, synthetic, config):
    """plan(**choices): with the sets above unless others are named."""

    def make(real=prepared, synthetic=synthetic, **choices):
        return plan_evaluation(real, synthetic, tmp_path / "out", config, **choices)

    return make


@pytest.fixture
def make_study(tmp_path, prepared):
    """make_study(**fields): a study with one size, all three training cases."""

    def make(weights=WEIGHTS, num_train=3, **fields):
        digest = PreparedSet(prepared).digest
        generator = EvaluatedPipeline(
            name="abdomen", version=4, weights_sha256=weights, config_hash="c", dataset_digest=digest
        )
        size = Size(num_cases=3, dataset_digest=digest, num_pairs=3, pairs_seed=0, pipeline=generator)
        common = {"dataset": "abdomen", "dataset_digest": digest, "phantom": False, "labels": ["liver", "spleen"]}
        rest = {"num_train": num_train, "test_cases": ["real_100"], "seed": 0, "settings": {}, "sizes": [size]}
        write_usefulness(tmp_path / "study", UsefulnessResults.model_validate(common | rest | fields))
        return tmp_path / "study"

    return make


def test_a_plan_writes_nothing_and_says_what_each_section_is_made_of(plan, tmp_path):
    sections = sections_of(plan())
    assert sections["Agreement of image and mask"] == "4 real and 3 synthetic cases"
    assert sections["Novelty"] == "4 real and 3 synthetic cases"
    assert sections["Usefulness for training"].startswith("not run: It needs a study")
    assert sections_of(plan(segmenter="none"))["Agreement of image and mask"].startswith(
        "not run: It needs a segmenter"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_default_goals_are_used_unless_others_are_given(plan, tmp_path):
    (tmp_path / "goals.yaml").write_text("- {figure: a, at_most: 1}")
    assert "agreement.dice_gap" in [goal.metric for goal in plan().goals]
    assert [goal.metric for goal in plan(goals=tmp_path / "goals.yaml").goals] == ["a"]


def test_a_judge_that_would_have_to_be_trained_needs_a_prepared_set(plan, tmp_path, make_decathlon, prepared):
    real = make_decathlon(tmp_path / "real")
    with pytest.raises(ConfigError, match="--segmenter auto trains on a prepared set: give it with --train"):
        plan(real=real)
    assert plan(real=real, segmenter="none").sets.train is None
    assert plan(real=real, train=prepared).sets.train.case_ids == ["real_200", "real_201", "real_202"]


@pytest.mark.parametrize("choice", [{"extractor": "medicalnet-resnet10"}, {"weights": "weights.pt"}])
def test_a_kind_of_network_and_its_weights_go_together(plan, choice):
    with pytest.raises(ConfigError, match="--extractor and --weights go together"):
        plan(**choice)


def test_a_study_of_the_pipeline_is_taken(plan, make_study):
    assert plan(usefulness=make_study()).usefulness.dataset == "abdomen"


def test_a_study_of_another_data_set_is_refused(plan, make_study):
    with pytest.raises(ConfigError, match="about the prepared set with digest eeeeeeeeeeee, but the pipeline was"):
        plan(usefulness=make_study(dataset_digest="e" * 64))


def test_a_study_whose_generator_for_all_cases_is_another_one_is_refused(plan, make_study):
    with pytest.raises(
        ConfigError, match=r"another pipeline than abdomen@4; repeat the study with --pipeline abdomen@4"
    ):
        plan(usefulness=make_study(weights={"refiner": "e" * 64}))


def test_generators_for_fewer_cases_may_be_others(plan, make_study):
    assert plan(usefulness=make_study(weights={"refiner": "e" * 64}, num_train=9)).usefulness.num_train == 9


@pytest.fixture(scope="module")
def registered(tmp_path_factory, config, write_toy_bundle):
    """The weights' hashes of the pipeline toy, version 1."""
    tracking = Tracking.of(config.storage)
    for stage in CHAIN:
        run_id = start_run(tracking, "toy", stage, tags={}, params={})
        register_bundle(tracking, write_toy_bundle(tmp_path_factory.mktemp("bundle") / "b", stage, 1, run_id))
    return {stage: bundle.weights_sha256 for stage, bundle in create_pipeline(tracking, "toy").info.stages.items()}


def test_the_bundles_of_the_pipeline_that_drew_the_set_are_found(plan, tmp_path, make_synthetic, registered):
    drawn = make_synthetic(tmp_path / "pairs", weights_sha256=registered)
    assert plan(synthetic=drawn, pipeline="toy@1").bundles.keys() == set(CHAIN)


def test_another_pipeline_than_the_one_that_drew_the_set_is_refused(plan, registered):
    with pytest.raises(
        ConfigError, match=r"its refiner has the weights .*, but .* drawn with ffffffffffff\.\.\. by abdomen@4"
    ):
        plan(pipeline="toy@1")
