import json

import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.intensity import IntensityRule
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.evaluation.plausibility import measure_mask
from medgen3d.evaluation.sets import open_sets

SPACING_MM = (2.0, 1.0, 0.5)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, make_synthetic):
    return make_synthetic(tmp_path_factory.mktemp("sets") / "synthetic")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make_prepared):
    return make_prepared(tmp_path_factory.mktemp("sets") / "prepared")


def test_of_a_prepared_set_the_test_split_is_compared_and_the_training_split_was_learnt_from(prepared, synthetic):
    sets = open_sets(prepared, synthetic)
    assert sets.real.case_ids == ["real_100", "real_101", "real_102", "real_103"]
    assert sets.train.case_ids == ["real_200", "real_201", "real_202"]
    assert sets.train.prepared.digest == PreparedSet(prepared).digest
    assert (sets.real.facts["Split"], sets.train.facts["Split"]) == ("test", "train")


def test_of_a_decathlon_folder_all_cases_are_compared_and_what_was_learnt_from_is_not_known(
    tmp_path, make_decathlon, synthetic
):
    sets = open_sets(make_decathlon(tmp_path / "real"), synthetic)
    assert sets.real.case_ids == ["case_100", "case_101", "case_102", "case_103"]
    assert sets.train is None


def test_training_cases_can_be_given_apart(tmp_path, make_decathlon, prepared, synthetic):
    real = make_decathlon(tmp_path / "real")
    assert open_sets(real, synthetic, prepared).train.case_ids == ["real_200", "real_201", "real_202"]
    assert open_sets(prepared, synthetic, real).train.case_ids == ["case_100", "case_101", "case_102", "case_103"]


def test_real_and_synthetic_volumes_are_mapped_by_the_rule_of_the_training_set(
    tmp_path, make_decathlon, make_synthetic, prepared
):
    """The window -200..300 of the prepared set makes -1 of -200 HU, 0 of 50 HU and 1 of 300 HU."""
    seeds = range(100, 102)
    sets = open_sets(make_decathlon(tmp_path / "real", seeds), make_synthetic(tmp_path / "synthetic", seeds), prepared)
    stored, _ = open_sets(prepared, tmp_path / "synthetic").real.read("real_100")
    of_decathlon, mask = sets.real.read("case_100")
    of_synthetic, synthetic_mask = sets.synthetic.read("syn_00000")

    hounsfield = nifti.read(tmp_path / "real" / "imagesTr" / "case_100.nii.gz").volume.voxels
    np.testing.assert_allclose(of_decathlon, np.clip((hounsfield - 50) / 250, -1, 1), atol=1e-6)
    np.testing.assert_array_equal(of_decathlon, of_synthetic)
    np.testing.assert_allclose(stored, of_decathlon, atol=1e-3)  # prepared images are stored as float16, unpadded here
    assert of_decathlon.dtype == of_synthetic.dtype == stored.dtype == np.float32
    np.testing.assert_array_equal(mask, synthetic_mask)
    assert np.unique(mask).tolist() == [0, 1, 2]


def test_without_a_prepared_set_the_rule_is_the_modalitys_default(tmp_path, make_decathlon, make_synthetic):
    """CT: -1000..1000 HU. MR: the volume's own percentiles 0.5 and 99.5, so that 1 % of the voxels are clipped."""
    real = make_decathlon(tmp_path / "real")
    hounsfield = nifti.read(real / "imagesTr" / "case_100.nii.gz").volume.voxels
    ct, _ = open_sets(real, make_synthetic(tmp_path / "ct")).real.read("case_100")
    np.testing.assert_allclose(ct, hounsfield / 1000, atol=1e-6)
    mr, _ = open_sets(real, make_synthetic(tmp_path / "mr", modality="MR")).real.read("case_100")
    assert 0.009 < np.mean(np.abs(mr) == 1) < 0.012


def test_a_prepared_set_that_was_scaled_by_percentiles_maps_every_synthetic_volume_by_its_own(
    tmp_path, make_prepared, make_synthetic
):
    rule = IntensityRule(kind="percentiles", low=0, high=100)
    real = make_prepared(tmp_path / "real", intensity=rule)
    sets = open_sets(real, make_synthetic(tmp_path / "synthetic"))
    for case_id in sets.synthetic.case_ids:
        image, _ = sets.synthetic.read(case_id)
        assert (image.min(), image.max()) == (-1, 1)


def test_the_synthetic_set_says_where_it_comes_from_and_how_many_cases_failed(prepared, synthetic):
    facts = open_sets(prepared, synthetic).synthetic.description.facts
    assert facts["Pipeline"] == "abdomen, version 4"
    assert facts["Seed"] == "77"
    assert facts["Failed cases"] == "1"


@pytest.mark.parametrize("kind", ["make_prepared", "make_decathlon"])
def test_another_spacing_is_refused_with_both_named(tmp_path, request, kind, synthetic):
    real = request.getfixturevalue(kind)(tmp_path / "real", spacing_mm=(3.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"voxels of 3 x 1 x 1 mm, but the synthetic set has 2 x 1 x 0\.5 mm"):
        open_sets(real, synthetic).real.read("case_100")


def test_other_labels_are_refused(tmp_path, prepared, make_synthetic):
    others = {0: "background", 5: "liver", 9: "spleen", 11: "aorta"}
    with pytest.raises(DataError, match=r"\(0, 5, 9, 11\).*\(0, 5, 9\)"):
        open_sets(prepared, make_synthetic(tmp_path / "synthetic", labels=others))


@pytest.mark.parametrize("empty", ["synthetic", "test", "train"])
def test_a_set_without_cases_is_refused(tmp_path, make_prepared, make_synthetic, empty):
    none = range(0)
    real = make_prepared(tmp_path / "real", **({empty: none} if empty != "synthetic" else {}))
    synthetic = make_synthetic(tmp_path / "synthetic", none if empty == "synthetic" else range(2))
    with pytest.raises(
        DataError, match=rf"{'synthetic' if empty == 'synthetic' else 'real'} holds no cases that could"
    ):
        open_sets(real, synthetic)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path, synthetic, prepared):
    with pytest.raises(DataError, match=r"neither dataset\.yaml"):
        open_sets(tmp_path, synthetic)
    with pytest.raises(DataError, match=r"neither dataset\.yaml"):
        open_sets(prepared, synthetic, tmp_path)
    with pytest.raises(ArtifactError, match="manifest"):
        open_sets(prepared, tmp_path)


@pytest.mark.parametrize(("value", "sentence"), [(7.0, "99.5 of the image are both 7"), (np.nan, "NaN or infinity")])
def test_an_image_that_cannot_be_mapped_is_refused_with_its_case(
    tmp_path, make_decathlon, make_synthetic, value, sentence
):
    real = make_decathlon(tmp_path / "real")
    flat = Volume(voxels=np.full((8, 16, 16), value, np.float32), affine=affine_from_spacing(SPACING_MM))
    nifti.write(real / "imagesTr" / "case_101.nii.gz", flat, "LAS")
    sets = open_sets(real, make_synthetic(tmp_path / "synthetic", modality="MR"))
    with pytest.raises(DataError, match=rf"case case_101: .*{sentence}"):
        sets.real.read("case_101")


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        '{"training": []}',
        '{"labels": {"1": "liver"}}',
        '{"labels": {"liver": "one"}, "training": []}',
        '{"labels": {"1": "liver"}, "training": ["imagesTr/a.nii.gz"]}',
        "[]",
    ],
)
def test_a_description_that_is_no_decathlons_is_refused_in_one_sentence(tmp_path, synthetic, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json is not valid .* Run `medgen3d ingest`"):
        open_sets(tmp_path, synthetic)


def test_a_missing_file_is_named(tmp_path, make_decathlon, synthetic):
    real = make_decathlon(tmp_path / "real")
    (real / "imagesTr" / "case_100.nii.gz").unlink()
    with pytest.raises(DataError, match=r"imagesTr/case_100\.nii\.gz: found no such file"):
        open_sets(real, synthetic).real.read("case_100")


def test_a_damaged_synthetic_file_is_found(tmp_path, prepared, make_synthetic):
    synthetic = make_synthetic(tmp_path / "synthetic")
    (synthetic / "images" / "syn_00001.nii.gz").write_bytes(b"")
    with pytest.raises(ArtifactError, match="syn_00001"):
        open_sets(prepared, synthetic).synthetic.read("syn_00001")


def test_real_hippocampi_have_the_volumes_and_components_that_others_counted(tmp_path, real_data, make_synthetic):
    labels = {int(label): name for label, name in json.loads(dataset_json(real_data))["labels"].items()}
    synthetic = make_synthetic(tmp_path, labels=labels, spacing_mm=(1, 1, 1), modality="MR", seeds=range(1), side=0)
    found = open_sets(real_data / "hippocampus", synthetic).real
    cases = [measure_mask(found.read(case_id)[1], len(found.labels), found.spacing_mm) for case_id in found.case_ids]

    assert len(cases) == 200
    assert np.mean([case.num_voxels for case in cases], axis=0)[1:] == pytest.approx([1724, 1582], abs=1)
    assert np.mean([case.num_components for case in cases], axis=0)[1:] == pytest.approx([1.02, 1.05], abs=0.006)


def dataset_json(real_data) -> str:
    return (real_data / "hippocampus" / "dataset.json").read_text()


def test_real_cases_that_say_that_they_are_synthetic_are_named(tmp_path, make_decathlon, make_synthetic):
    real, pairs = make_decathlon(tmp_path / "real"), make_synthetic(tmp_path / "pairs")
    assert open_sets(real, pairs).real.marked == ()
    (real / "imagesTr" / "case_102.nii.gz").write_bytes((pairs / "images" / "syn_00001.nii.gz").read_bytes())
    assert open_sets(real, pairs).real.marked == ("case_102",)
