import hashlib

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.synthetic_set import (
    SyntheticSet,
    damages,
    merge_parts,
    open_for_writing,
    read_manifest,
    write_case,
    write_part,
)
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing

INFO = SyntheticSetInfo(
    dataset_name="knee",
    dataset_digest="d" * 64,
    modality="MR",
    phantom=False,
    labels={0: "background", 4: "bone", 300: "cartilage"},
    spacing_mm=(3.0, 0.5, 0.75),
    axis_codes="LPS",
    image_dtype="int16",
    pipeline_name="knee.pipeline",
    pipeline_version=2,
    seed=11,
    config_hash="c" * 64,
    weights_sha256={"refiner": "f" * 64},
    batch=8,
    threads=1,
    device="cpu",
)


def pair(number):
    rng = np.random.default_rng(number)
    affine = affine_from_spacing(INFO.spacing_mm)
    image = rng.normal(100, 400, size=(4, 5, 6)).astype(np.float32)
    mask = rng.choice(np.array([0, 4, 300], dtype=np.uint16), size=(4, 5, 6))
    return Volume(voxels=image, affine=affine), Volume(voxels=mask, affine=affine)


def written(root, info, number):
    image, mask = pair(number)
    return write_case(root, info, case_id=f"syn_{number:05d}", number=number, image=image, mask=mask)


def make_set(root, num_cases=3, info=INFO):
    open_for_writing(root, info)
    write_part(root, info, 0, [written(root, info, number) for number in range(num_cases)])
    merge_parts(root)
    return SyntheticSet(root)


def test_a_set_reads_back_as_it_was_written(tmp_path):
    found = make_set(tmp_path)

    assert found.info == INFO
    assert found.case_ids == ["syn_00000", "syn_00001", "syn_00002"]
    image, mask = found.read("syn_00001")
    expected_image, expected_mask = pair(1)
    np.testing.assert_array_equal(mask.voxels, expected_mask.voxels)
    np.testing.assert_array_equal(image.voxels, np.rint(expected_image.voxels))
    assert mask.spacing_mm == pytest.approx(INFO.spacing_mm)


def test_image_and_mask_share_grid_and_orientation_and_the_mask_keeps_its_ids(tmp_path):
    make_set(tmp_path)
    image, mask = (nib.load(tmp_path / folder / "syn_00000.nii.gz") for folder in ("images", "labels"))

    for field in ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(image.header[field], mask.header[field])
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms() == pytest.approx((0.75, 0.5, 3.0))
    assert image.get_data_dtype() == np.int16
    assert set(np.unique(mask.dataobj)) == {0, 4, 300}


def test_the_manifest_repeats_in_each_row_what_a_reader_of_the_table_alone_needs(tmp_path):
    make_set(tmp_path, num_cases=2)
    rows = pq.read_table(tmp_path / "manifest.parquet").to_pylist()

    assert [row["case_id"] for row in rows] == ["syn_00000", "syn_00001"]
    for row in rows:
        assert (row["seed"], row["pipeline_name"], row["pipeline_version"]) == (11, "knee.pipeline", 2)
        assert (row["config_hash"], row["phantom"], row["status"]) == ("c" * 64, False, "done")
        assert row["shape"] == [4, 5, 6]
        assert row["gates"] == []  # none has run
        content = (tmp_path / "images" / f"{row['case_id']}.nii.gz").read_bytes()
        assert row["image_sha256"] == hashlib.sha256(content).hexdigest()


def test_gate_scores_survive_the_manifest(tmp_path):
    open_for_writing(tmp_path, INFO)
    row = ManifestRow(case_id="a", number=0, shape=(1, 1, 1), status="failed", gates={"volume": 0.5, "novelty": 0.25})
    write_part(tmp_path, INFO, 0, [row])

    assert read_manifest(tmp_path)[1]["a"] == row


def test_rows_of_an_interrupted_run_are_found_before_and_after_they_are_merged(tmp_path):
    open_for_writing(tmp_path, INFO)
    write_part(tmp_path, INFO, 1, [written(tmp_path, INFO, 5)])
    assert list(open_for_writing(tmp_path, INFO)) == ["syn_00005"]
    merge_parts(tmp_path)
    write_part(tmp_path, INFO, 0, [written(tmp_path, INFO, 2)])

    assert SyntheticSet(tmp_path).case_ids == ["syn_00002", "syn_00005"]
    merge_parts(tmp_path)
    assert SyntheticSet(tmp_path).case_ids == ["syn_00002", "syn_00005"]
    assert not list((tmp_path / "manifest.parts").iterdir())


def test_a_case_that_is_written_again_has_one_row_the_later_one(tmp_path):
    make_set(tmp_path, num_cases=1)
    failed = ManifestRow(case_id="syn_00000", number=0, shape=(4, 5, 6), status="failed", message="no luck")
    write_part(tmp_path, INFO, 0, [failed])
    merge_parts(tmp_path)

    assert pq.read_table(tmp_path / "manifest.parquet").num_rows == 1
    assert read_manifest(tmp_path)[1]["syn_00000"].message == "no luck"


def test_writing_a_case_twice_gives_the_same_bytes(tmp_path):
    open_for_writing(tmp_path, INFO)
    assert written(tmp_path, INFO, 7) == written(tmp_path, INFO, 7)


def test_a_failed_case_is_in_the_manifest_and_nowhere_else(tmp_path):
    open_for_writing(tmp_path, INFO)
    failed = ManifestRow(case_id="syn_00001", number=1, shape=(4, 5, 6), status="failed", message="no luck")
    write_part(tmp_path, INFO, 0, [written(tmp_path, INFO, 0), failed])
    merge_parts(tmp_path)

    assert SyntheticSet(tmp_path).case_ids == ["syn_00000"]
    assert "syn_00001" not in (tmp_path / "dataset.json").read_text()


@pytest.mark.parametrize("change", ["truncate", "flip a byte", "remove"])
def test_a_file_that_is_not_what_was_written_is_found(tmp_path, change):
    found = make_set(tmp_path)
    path = tmp_path / "labels" / "syn_00001.nii.gz"
    content = bytearray(path.read_bytes())
    if change == "truncate":
        path.write_bytes(content[:-20])
    elif change == "flip a byte":
        content[100] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()

    with pytest.raises(ArtifactError, match=r"labels/syn_00001\.nii\.gz: found .* expected .* Run the same"):
        found.read("syn_00001")
    assert [error.args[0] for error in damages(tmp_path, INFO, found.rows["syn_00001"])] == [str(path)]
    assert list(damages(tmp_path, INFO, found.rows["syn_00000"])) == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seed", 12, "seed 11 there and 12 now"),
        ("pipeline_version", 3, "pipeline_version 2 there and 3 now"),
        ("config_hash", "e" * 64, "config_hash"),
        ("batch", 4, "batch 8 there and 4 now"),
    ],
)
def test_a_folder_never_mixes_two_pipelines_or_seeds(tmp_path, field, value, words):
    make_set(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_for_writing(tmp_path, INFO.model_copy(update={field: value}))
    assert "Choose another folder" in str(caught.value)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DataError, match="holds other files"):
        open_for_writing(tmp_path, INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_no_synthetic_set_and_a_damaged_manifest_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        SyntheticSet(tmp_path)
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ArtifactError, match="unreadable"):
        SyntheticSet(tmp_path)


def test_a_manifest_of_another_schema_version_is_refused(tmp_path):
    open_for_writing(tmp_path, INFO.model_copy(update={"schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema version 99"):
        SyntheticSet(tmp_path)


def test_an_image_and_a_mask_on_different_grids_are_never_written(tmp_path):
    open_for_writing(tmp_path, INFO)
    image, mask = pair(0)
    moved = Volume(voxels=mask.voxels, affine=mask.affine + np.eye(4, k=3))
    with pytest.raises(ValueError, match="different grids"):
        write_case(tmp_path, INFO, case_id="a", number=0, image=image, mask=moved)
    assert not list((tmp_path / "images").iterdir())


def test_a_case_id_cannot_lead_out_of_the_folder():
    with pytest.raises(ValueError, match="pattern"):
        ManifestRow(case_id="../../passwd", number=0, shape=(1, 1, 1), status="done")
