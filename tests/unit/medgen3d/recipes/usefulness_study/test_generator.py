"""Pairs that are there are used as they are, if they come from a generator that has seen the right cases."""

import shutil

import pytest

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.subset import write_subset
from medgen3d.artifacts.usefulness_results import Size
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import DataError
from medgen3d.recipes.usefulness_study.generator import make_pairs
from medgen3d.recipes.usefulness_study.plan import plan_study
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.pipeline import create_pipeline
from medgen3d.registry.tracking import Tracking, start_run


def not_shown(*_: object) -> None:
    raise AssertionError("neither training nor synthesis may begin")


@pytest.fixture
def sizes(prepared, config, tmp_path):
    """Two cases, and all six."""
    return plan_study(prepared.root, tmp_path / "study", config, sizes="2,all").sizes


def make(size, prepared, config, num_pairs: int = 3) -> Size:
    """What `make_pairs` gives without a Ray cluster: whatever needs one fails."""
    return make_pairs(size, prepared, num_pairs, config, not_shown)


def test_enough_pairs_of_a_generator_that_saw_all_cases_are_used(sizes, prepared, config, write_pairs):
    whole = sizes[1]
    write_pairs(whole.pairs, prepared.digest, 4)
    made = make(whole, prepared, config)
    assert (made.num_cases, made.num_pairs, made.dataset_digest) == (6, 3, prepared.digest)
    assert (made.pipeline.name, made.pipeline.weights_sha256) == ("blocks", {"mask_generator": "w" * 64})
    assert not (whole.folder / "prepared").exists()


def test_a_smaller_sizes_pairs_must_come_from_a_generator_that_saw_its_cases_only(sizes, prepared, config, write_pairs):
    small = sizes[0]
    subset = write_subset(prepared, small.prepared, small.case_ids)
    write_pairs(small.pairs, subset.digest, 3)
    assert make(small, prepared, config).dataset_digest == subset.digest

    shutil.rmtree(small.pairs)
    write_pairs(small.pairs, prepared.digest, 3)
    with pytest.raises(DataError, match=f"digest {prepared.digest[:12]}, expected {subset.digest[:12]}"):
        make(small, prepared, config)


def test_the_cases_of_a_size_are_cut_out_before_anything_else(sizes, prepared, config, write_pairs):
    small = sizes[0]
    write_pairs(small.pairs, "d" * 64, 3)
    with pytest.raises(DataError):
        make(small, prepared, config)
    assert set(PreparedSet(small.prepared).info.case_ids()) == set(small.case_ids)


def test_too_few_pairs_of_a_generator_that_is_elsewhere_are_refused_before_hours_of_training(
    sizes, prepared, config, write_pairs
):
    whole = sizes[1]
    write_pairs(whole.pairs, prepared.digest, 2)
    whole.storage.training_dir.mkdir(parents=True)  # somebody's own trainings may lie there
    with pytest.raises(DataError, match=r"holds 2 pairs .* but 3 are needed.* set --synthetic 2"):
        make(whole, prepared, config)


@pytest.fixture
def register_pipeline(config, write_toy_bundle, tmp_path, empty_database):
    """register_pipeline(digest): `toy@1`, whose mask generator's weights have the hash that it returns."""

    def register(digest: str) -> str:
        config.storage.root.mkdir()
        shutil.copy(empty_database, config.storage.root)
        tracking = Tracking.of(config.storage)
        for stage in CHAIN:
            run_id = start_run(tracking, "toy", stage, tags={}, params={})
            register_bundle(tracking, write_toy_bundle(tmp_path / "bundle", stage, parent_run=run_id, digest=digest))
        return create_pipeline(tracking, "toy").info.stages["mask_generator"].weights_sha256

    return register


def chosen(prepared, config, tmp_path):
    return plan_study(prepared.root, tmp_path / "study", config, sizes="all", pipeline="toy@1").sizes[0]


def test_a_named_pipeline_must_have_been_trained_on_these_cases(prepared, config, tmp_path, register_pipeline):
    register_pipeline("e" * 64)
    with pytest.raises(DataError, match=r"toy@1: its \w+ was trained on a data set with digest eeeeeeeeeeee"):
        make(chosen(prepared, config, tmp_path), prepared, config)


def test_pairs_that_are_there_must_be_those_of_the_named_pipeline(
    prepared, config, tmp_path, register_pipeline, write_pairs
):
    weights, whole = register_pipeline(prepared.digest), chosen(prepared, config, tmp_path)
    write_pairs(whole.pairs, prepared.digest, 3, weights=weights)
    assert make(whole, prepared, config).pipeline.weights_sha256 == {"mask_generator": weights}

    shutil.rmtree(whole.pairs)
    write_pairs(whole.pairs, prepared.digest, 3)
    with pytest.raises(DataError, match="another generator than toy@1"):
        make(whole, prepared, config)
