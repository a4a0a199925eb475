import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.core.errors import RegistryError
from medgen3d.registry.bundles import register_bundle, resolve_bundle
from medgen3d.registry.tracking import start_run
from medgen3d.registry.versions import list_versions


def test_a_registered_bundle_is_read_back_from_the_registry(tracking, register):
    registered = register("refiner", seed=3)
    version, root = resolve_bundle(tracking, "toy", "refiner", "latest")
    assert (version.model, version.number) == (registered.model, registered.number) == ("toy.refiner", 1)
    assert root.is_relative_to(tracking.artifact_root)
    assert read_bundle(root).provenance.seed == 3


def test_a_version_says_which_data_config_code_and_run_it_comes_from(tracking, register):
    version = register(digest="e" * 64)
    provenance = read_bundle(resolve_bundle(tracking, "toy", "mask_generator", "1")[1]).provenance
    assert version.tags["dataset_digest"] == "e" * 64
    assert version.tags["config_hash"] == "c" * 64
    assert version.tags["code_version"] == provenance.code_version
    assert version.tags["parent_run"] == version.run_id == provenance.parent_run


def test_the_run_names_the_data_set_it_read_and_the_model_it_made(tracking, register):
    version = register(digest="e" * 64)
    run = tracking.client().get_run(version.run_id)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("toy", "e" * 36)  # 36 characters is all that MLflow keeps
    (made,) = run.outputs.model_outputs
    assert made.model_id == version.tags["model_id"]


def test_a_run_that_is_finished_twice_registers_its_weights_once(tracking, tmp_path, write_toy_bundle):
    run_id = start_run(tracking, "toy", "x", {}, {})
    first = register_bundle(tracking, write_toy_bundle(tmp_path / "bundle", parent_run=run_id))
    again = write_toy_bundle(tmp_path / "bundle", parent_run=run_id)
    (again / "preview.png").write_bytes(b"another picture of the same weights")
    assert register_bundle(tracking, again).number == first.number == 1
    assert register_bundle(tracking, write_toy_bundle(tmp_path / "bundle", seed=9, parent_run=run_id)).number == 2
    assert len(list_versions(tracking, "toy.mask_generator")) == 2


def test_a_bundle_without_a_run_is_refused(tracking, tmp_path, write_toy_bundle):
    with pytest.raises(RegistryError, match="names no tracking run"):
        register_bundle(tracking, write_toy_bundle(tmp_path / "bundle"))


def test_a_bundle_whose_data_set_has_an_ambiguous_name_is_refused(tracking, tmp_path, write_toy_bundle):
    root = write_toy_bundle(tmp_path / "bundle", parent_run="r", name="a.b")
    with pytest.raises(RegistryError, match=r"letters, digits, _ and - only, got 'a\.b'"):
        register_bundle(tracking, root)
