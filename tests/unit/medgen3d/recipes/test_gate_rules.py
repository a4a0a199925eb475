import shutil

import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import DataError, RegistryError
from medgen3d.recipes.gate_rules import gate_rules
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.tracking import Tracking, start_run


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_toy_bundle, empty_database):
    """With a registry of two segmenters of the pipeline's data, and a third one of other data."""
    root = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, root)
    config = ExperimentConfig.model_validate({"storage": {"root": str(root)}})
    tracking = Tracking.of(config.storage)
    for seed, digest in enumerate(("d" * 64, "d" * 64, "e" * 64)):
        run_id = start_run(tracking, "knee", "segmenter", tags={}, params={})
        bundle = write_toy_bundle(root / "bundle", "segmenter", seed, run_id, name="knee", digest=digest)
        register_bundle(tracking, bundle)
    return config


def seed_of(rules):
    return read_bundle(rules.segmenter.root).provenance.seed


def test_the_newest_segmenter_of_the_same_data_judges_alignment(tiny_as_pipeline, config):
    rules, idle = gate_rules(tiny_as_pipeline("knee"), config)
    assert seed_of(rules) == 1
    assert rules.min_alignment == config.synthesis.min_alignment
    assert idle.keys() == {"limits of labels", "near copies"}


def test_a_segmenter_can_be_named_or_left_out(tiny_as_pipeline, config):
    assert seed_of(gate_rules(tiny_as_pipeline("knee"), config, "knee@1")[0]) == 0
    rules, idle = gate_rules(tiny_as_pipeline("knee"), config, "none")
    assert rules.segmenter is None
    assert "alignment" in idle
    with pytest.raises(RegistryError):
        gate_rules(tiny_as_pipeline("knee"), config, "knee@4")


def test_a_built_in_pipeline_asks_no_registry(tiny_as_pipeline, config):
    rules, idle = gate_rules(tiny_as_pipeline("builtin/knee"), config)
    assert rules.segmenter is None
    assert "alignment" in idle


def test_other_data_than_the_pipelines_are_refused(tiny_as_pipeline, config, make_prepared, tmp_path):
    with pytest.raises(DataError, match="is not the prepared set that knee was trained on"):
        gate_rules(tiny_as_pipeline("knee"), config, train=make_prepared(tmp_path))


def test_no_gate_runs_when_they_are_switched_off(tiny_as_pipeline, config):
    off = config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"gates": False})})
    rules, idle = gate_rules(tiny_as_pipeline("knee"), off)
    assert rules.digests == {}
    assert idle == {"all gates": "synthesis.gates is false"}
