"""`usefulness.json`: a round trip, and what it tells of a study that is under way."""

import json

import pytest

from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.usefulness_results import (
    FILE,
    Size,
    Trial,
    UsefulnessResults,
    read_usefulness,
    write_usefulness,
)
from medgen3d.core.errors import ArtifactError

PIPELINE = EvaluatedPipeline(
    name="knee", version=3, weights_sha256={"refiner": "f" * 64}, config_hash="c" * 64, dataset_digest="d" * 64
)


def size(num_cases: int) -> Size:
    return Size(num_cases=num_cases, dataset_digest="e" * 64, num_pairs=12, pairs_seed=0, pipeline=PIPELINE)


def trial(arm: str, num_cases: int, seed: int, bone: float = 0.5, cartilage: float = 0.75) -> Trial:
    dice = {"bone": bone, "cartilage": cartilage}
    return Trial(arm=arm, num_cases=num_cases, seed=seed, dice=dice, seconds=1.5)


BEGUN = UsefulnessResults(
    dataset="knee",
    dataset_digest="d" * 64,
    phantom=True,
    labels=["bone", "cartilage"],
    num_train=20,
    test_cases=["case_8", "case_9"],
    seed=0,
    settings={"segmenter": {"channels": 8}, "real_share": 0.5},
    mlflow_run="run",
)


def test_results_read_back_as_they_were_written(tmp_path):
    results = BEGUN.with_size(size(20)).with_trials([trial("real", 20, 0), trial("real+synthetic", 20, 0)])
    write_usefulness(tmp_path / "new" / "study", results)
    assert read_usefulness(tmp_path / "new" / "study") == results
    assert [path.name for path in (tmp_path / "new" / "study").iterdir()] == [FILE]


def test_another_version_and_an_unknown_field_are_refused(tmp_path):
    for change, found in ({"schema_version": 2}, "schema version 2"), ({"colour": "red"}, "colour"):
        (tmp_path / FILE).write_text(json.dumps(BEGUN.model_dump(mode="json") | change))
        with pytest.raises(ArtifactError, match=found):
            read_usefulness(tmp_path)


def test_trials_are_found_by_arm_and_size_in_the_order_of_their_seeds():
    trials = [trial("real", 5, 1), trial("real", 10, 0), trial("synthetic", 5, 0), trial("real", 5, 0)]
    results = BEGUN.with_trials(trials[:2]).with_trials(trials[2:])
    assert results.of("real", 5) == {0: trials[3], 1: trials[0]}
    assert list(results.of("real", 5)) == [0, 1]
    assert results.of("real+synthetic", 5) == {}


def test_sizes_are_kept_in_ascending_order():
    assert [each.num_cases for each in BEGUN.with_size(size(20)).with_size(size(5)).sizes] == [5, 20]


def test_the_mean_dice_of_a_trial_is_that_of_its_labels():
    assert trial("real", 5, 0, bone=0.25, cartilage=0.75).mean_dice == 0.5
