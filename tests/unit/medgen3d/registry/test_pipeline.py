import json

import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.pipeline import PinnedBundle
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import ArtifactError, RegistryError
from medgen3d.core.hashing import sha256_of
from medgen3d.registry.bundles import resolve_bundle
from medgen3d.registry.pipeline import (
    create_pipeline,
    describe,
    list_pipelines,
    resolve_pipeline,
    split_reference,
)
from medgen3d.registry.promotion import promote
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import fetch, find_version


@pytest.fixture
def tracking(stocked_tracking) -> Tracking:
    return stocked_tracking


def test_a_new_pipeline_pins_the_latest_bundles_and_is_the_candidate(tracking, register):
    newest = register("refiner", seed=2, digest="e" * 64)
    created = create_pipeline(tracking, "toy")
    assert str(created.version) == "toy.pipeline version 1"
    assert created.version.aliases == ("candidate",)
    assert {stage: bundle.version for stage, bundle in created.info.stages.items()} == {
        "mask_generator": 1,
        "image_sequence_generator": 1,
        "refiner": 2,
    }
    assert created.info.stages["refiner"] == PinnedBundle(
        model="toy.refiner",
        version=2,
        weights_sha256=newest.sha256["weights.safetensors"],
        dataset_digest="e" * 64,
    )


def test_a_pipeline_says_what_its_bundles_agree_on(tracking):
    info = create_pipeline(tracking, "toy").info
    assert (info.dataset, info.modality, info.phantom) == ("toy", "MR", True)
    assert (info.labels, info.spacing_mm, info.plane) == ({0: "background", 3: "node"}, (2.0, 1.0, 1.0), (16, 8))


def test_bundles_are_chosen_by_number_alias_or_name(tracking, register):
    register("refiner", seed=2)
    register("refiner", seed=3)
    tracking.client().set_registered_model_alias("toy.refiner", "smooth", "2")
    versions = [
        create_pipeline(tracking, "toy", {"refiner": choice}).info.stages["refiner"].version
        for choice in ("1", "smooth", "toy@2", "toy@latest")
    ]
    assert versions == [1, 2, 2, 3]


def test_a_resolved_pipeline_gives_the_folders_of_the_pinned_bundles(tracking, register):
    create_pipeline(tracking, "toy")
    register("refiner", seed=2)  # newer bundles change nothing for a pipeline that is pinned
    pipeline = resolve_pipeline(tracking, "toy@1")
    assert (pipeline.name, pipeline.version, pipeline.notice) == ("toy", 1, "")
    for stage, root in pipeline.bundles.items():
        assert read_bundle(root).info.stage == stage
        assert read_bundle(root).provenance.seed == 1
        assert sha256_of(root / "weights.safetensors") == pipeline.info.stages[stage].weights_sha256


def test_a_name_alone_means_the_candidate_with_a_notice_until_there_is_a_champion(tracking):
    create_pipeline(tracking, "toy")
    create_pipeline(tracking, "toy")
    before = resolve_pipeline(tracking, "toy")
    assert before.version == 2
    assert before.notice == (
        "pipeline toy has no champion yet, so its candidate, version 2, is used; "
        "`medgen3d pipeline promote toy --report DIR` makes it the champion"
    )
    promote(tracking, "toy@1", None, force=True)
    after = resolve_pipeline(tracking, "toy")
    assert (after.version, after.notice) == (1, "")


def test_there_is_no_champion_before_one_is_promoted(tracking):
    create_pipeline(tracking, "toy")
    with pytest.raises(
        RegistryError, match=r"'champion'; it has the versions 1 and the aliases latest, candidate \(1\)"
    ):
        resolve_pipeline(tracking, "toy@champion")


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        (
            "labels",
            {0: "background", 4: "node"},
            r"{0: 'background', 3: 'node'} in the first and {0: 'background', 4: 'node'}",
        ),
        ("spacing_mm", (2.0, 1.0, 1.5), "(2.0, 1.0, 1.0) in the first and (2.0, 1.0, 1.5)"),
        ("plane", (16, 16), "(16, 8) in the first and (16, 16)"),
        ("modality", "CT", "MR in the first and CT"),
        ("phantom", False, "True in the first and False"),
    ],
)
def test_bundles_that_differ_are_refused_with_the_field_the_bundles_and_both_values(
    tracking, register, field, value, shown
):
    register("refiner", **{field: value})
    with pytest.raises(RegistryError) as caught:
        create_pipeline(tracking, "toy")
    assert f"toy.mask_generator version 1 and toy.refiner version 2 do not fit together: {field} is {shown}" in str(
        caught.value
    )
    assert list_pipelines(tracking) == {}
    assert create_pipeline(tracking, "toy", {"refiner": "1"}).version.number == 1


def test_another_number_of_labels_is_refused(tracking, register):
    register("image_sequence_generator", labels={0: "background", 3: "node", 4: "vessel"})
    with pytest.raises(RegistryError, match="labels is"):
        create_pipeline(tracking, "toy")


def test_bundles_of_two_data_sets_are_refused(tracking, register):
    register("refiner", name="brain")
    with pytest.raises(RegistryError, match=r"toy.* and brain.refiner version 1 do not fit .* name is toy .* brain in"):
        create_pipeline(tracking, "toy", {"refiner": "brain@latest"})


def test_a_pipeline_cannot_be_called_by_another_data_sets_name(tracking):
    with pytest.raises(RegistryError, match="trained on toy, so their pipeline cannot be called brain"):
        create_pipeline(tracking, "brain", dict.fromkeys(CHAIN, "toy@latest"))


def test_a_stage_that_was_not_trained_is_named(tracking, register):
    register("mask_generator", name="brain")
    with pytest.raises(RegistryError, match=r"has no brain.image_sequence_generator; it has brain.mask_generator, toy"):
        create_pipeline(tracking, "brain")


def test_a_stage_that_does_not_exist_is_refused(tracking):
    with pytest.raises(RegistryError, match="no stage 'painter'; its stages are mask_generator, image"):
        create_pipeline(tracking, "toy", {"painter": "1"})


def test_an_unknown_pipeline_is_refused_with_a_list_of_what_exists(tracking):
    create_pipeline(tracking, "toy")
    with pytest.raises(RegistryError, match=r"has no brain.pipeline; it has .*toy.pipeline"):
        resolve_pipeline(tracking, "brain")


def test_weights_that_were_exchanged_in_the_registry_are_refused(tracking, register):
    register("refiner", seed=2)
    create_pipeline(tracking, "toy")
    path = resolve_bundle(tracking, "toy", "refiner", "2")[1] / "weights.safetensors"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(
        ArtifactError, match=r"weights.safetensors: found SHA-256 .* It belongs to toy.refiner version 2"
    ):
        resolve_pipeline(tracking, "toy")


def test_a_bundle_that_was_registered_anew_under_the_pinned_number_is_refused(tracking, register):
    create_pipeline(tracking, "toy")
    tracking.client().delete_registered_model("toy.refiner")
    register("refiner", seed=2)
    with pytest.raises(RegistryError, match=r"toy.pipeline version 1 pins toy.refiner version 1 with weights .* but"):
        resolve_pipeline(tracking, "toy")


def test_a_pipeline_of_another_schema_version_is_refused(tracking):
    created = create_pipeline(tracking, "toy")
    path = fetch(tracking, created.version) / "pipeline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    changed = sha256_of(path)
    tracking.client().set_model_version_tag("toy.pipeline", "1", "sha256/pipeline.json", changed)
    with pytest.raises(ArtifactError, match="found schema version 2, expected version 1"):
        describe(tracking, "toy@1")


def test_a_description_equals_what_was_created(tracking):
    created = create_pipeline(tracking, "toy")
    assert created == describe(tracking, "toy") == describe(tracking, "toy@candidate") == describe(tracking, "toy@1")


def test_the_run_of_a_pipeline_names_the_models_it_is_made_of(tracking):
    bundles = [find_version(tracking, f"toy.{stage}", "1") for stage in CHAIN]
    version = create_pipeline(tracking, "toy").version
    run = tracking.client().get_run(version.run_id)
    assert run.info.status == "FINISHED"
    parts = {part.model_id for part in run.inputs.model_inputs}
    assert parts == {bundle.tags["model_id"] for bundle in bundles}
    assert [made.model_id for made in run.outputs.model_outputs] == [version.tags["model_id"]]


@pytest.mark.parametrize(
    ("reference", "parts"), [("toy", ("toy", None)), ("a_b-1@x.2", ("a_b-1", "x.2")), ("a@3", ("a", "3"))]
)
def test_a_reference_is_a_name_with_or_without_a_version(reference, parts):
    assert split_reference(reference) == parts


@pytest.mark.parametrize("reference", ["", "@champion", "toy@", "toy@a@b", "toy.refiner@1", "toy@ champion", "a b"])
def test_anything_else_is_no_reference(reference):
    with pytest.raises(RegistryError):
        split_reference(reference)
