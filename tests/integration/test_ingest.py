"""Ingest as a whole, on a real local Ray cluster: phantoms and, where they are at hand, real volumes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts import dicom, nifti
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import DataError
from medgen3d.core.volume import Volume
from medgen3d.ingest.on_ray import ingest
from medgen3d.ingest.phantom import write_phantoms
from medgen3d.ingest.problems import BadCasesError

pytestmark = pytest.mark.usefixtures("ray_cluster")

MR = IngestConfig(modality="MR")
NUM_CASES = 22


@pytest.fixture
def source(tmp_path) -> Path:
    """A Decathlon data set; sizes, orientations and intensities differ from case to case."""
    root, rng = tmp_path / "source", np.random.default_rng(0)
    names = [f"case_{number:02d}.nii.gz" for number in range(NUM_CASES)]
    for number, name in enumerate(names):
        shape = (5 + number % 3, 9, 8 + number % 4)
        mask = np.zeros(shape, dtype=np.uint8)
        mask[1:3, 2:6, 2:6] = 1 + number % 2
        affine = np.diag([1.0, 1.0 if number % 5 else -1.0, 1.0, 1.0])
        for folder, voxels in (("imagesTr", rng.normal(100 + number, 9, shape).astype(np.float32)), ("labelsTr", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), root / folder / name)
    description = {
        "name": "Boxes",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "odd", "2": "even"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def unpadded(prepared: PreparedSet, case_id: str) -> tuple[Volume, Volume]:
    """Image in scanner units and mask with original ids, as a user would have them back."""
    case = prepared.read(case_id)
    inside = (slice(None), case.box.rows, case.box.columns)
    image = Volume(voxels=case.intensity.from_unit(case.image[inside]), affine=case.affine)
    return image, Volume(voxels=prepared.info.label_table.to_original(case.mask[inside]), affine=case.affine)


def test_one_worker_and_two_workers_write_the_same_bytes(source, tmp_path):
    digests = set()
    for num_workers in (1, 2):
        ingest(source, tmp_path / str(num_workers), IngestConfig(), seed=3, num_workers=num_workers)
        digests.add(PreparedSet(tmp_path / str(num_workers)).digest)
    assert len(digests) == 1


def test_every_case_can_be_read_as_the_table_of_contents_says(source, tmp_path):
    seen = []
    info = ingest(source, tmp_path / "out", IngestConfig(), seed=0, progress=lambda *step: seen.append(step))
    prepared = PreparedSet(tmp_path / "out")
    assert prepared.info == info
    assert (info.name, info.plane, info.axis_codes) == ("Boxes", (16, 8), "RAS")
    for entry in info.cases:
        case = prepared.read(entry.case_id)
        assert (case.split, case.image.shape[0]) == (entry.split, entry.shape[0])
        assert (case.box.height, case.box.width) == entry.shape[1:]
        assert np.abs(case.image).max() == 1  # the percentiles clip both ends
    assert ("verify", NUM_CASES, NUM_CASES) in seen
    assert seen[-1] == ("prepare", NUM_CASES, NUM_CASES)


def test_bad_cases_are_reported_together_and_nothing_is_written(source, tmp_path):
    (source / "labelsTr" / "case_03.nii.gz").unlink()
    image = source / "imagesTr" / "case_20.nii.gz"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(BadCasesError) as caught:
        ingest(source, tmp_path / "out", IngestConfig(), seed=0)
    assert [(problem.case, problem.kind) for problem in caught.value.problems] == [
        ("case_03", "missing partner"),
        ("case_20", "unreadable file"),
    ]
    assert not (tmp_path / "out").exists()
    info = ingest(source, tmp_path / "out", IngestConfig(), seed=0, skip_bad=True)
    assert set(info.skipped) == {"case_03", "case_20"}
    assert len(PreparedSet(tmp_path / "out")) == NUM_CASES - 2


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(source, tmp_path):
    planned = ingest(source, tmp_path / "out", IngestConfig(), seed=0, dry_run=True)
    assert not (tmp_path / "out").exists()
    assert ingest(source, tmp_path / "out", IngestConfig(), seed=0) == planned


def test_an_interrupted_run_keeps_its_finished_cases(source, tmp_path):
    out = tmp_path / "out"
    ingest(source, out, IngestConfig(), seed=0)
    digest = PreparedSet(out).digest
    kept, lost = out / "cases" / "000000.arrow", out / "cases" / "000001.arrow"
    (out / "dataset.yaml").unlink()
    lost.unlink()
    written_at = kept.stat().st_mtime_ns
    ingest(source, out, IngestConfig(), seed=0)
    assert PreparedSet(out).digest == digest
    assert kept.stat().st_mtime_ns == written_at


def test_a_different_set_is_replaced_only_on_demand(source, tmp_path):
    out = tmp_path / "out"
    ingest(source, out, IngestConfig(), seed=0)
    digest = PreparedSet(out).digest
    with pytest.raises(DataError, match="--overwrite"):
        ingest(source, out, IngestConfig(), seed=1)
    assert PreparedSet(out).digest == digest
    ingest(source, out, IngestConfig(), seed=1, overwrite=True)
    assert PreparedSet(out).info.seed == 1


def test_a_dry_run_and_a_run_say_the_same_of_what_the_grid_takes_away(source, tmp_path):
    path = source / "labelsTr" / "case_10.nii.gz"
    mask = nifti.read(path).volume
    corner = np.zeros_like(mask.voxels)
    corner[0, 0, 0] = 1
    nifti.write(path, Volume(voxels=corner, affine=mask.affine))
    config = IngestConfig(plane=(8, 8), spacing_mm=(2, 0.5, 0.5))
    told = []
    for dry_run in (True, False):
        with pytest.raises(BadCasesError) as caught:
            ingest(source, tmp_path / "out", config, seed=0, dry_run=dry_run)
        told.append(str(caught.value))
        assert not (tmp_path / "out").exists()
    assert told[0] == told[1]
    assert "case case_10: lost on the grid: found no labelled voxel at 2 x 0.5 x 0.5 mm in a plane of 8 x 8" in told[0]
    planned, written = (
        ingest(source, tmp_path / "out", config, seed=0, skip_bad=True, dry_run=dry_run) for dry_run in (True, False)
    )
    assert planned == written == PreparedSet(tmp_path / "out").info
    assert set(written.skipped) == {"case_10"}
    cut = "label 2 (even) loses"
    assert any(cut in note and cases for note, cases in written.notes.items())


@pytest.mark.parametrize(("kind", "modality"), [("thorax_ct", "CT"), ("brain_mr", "MR")])
def test_phantoms_are_taken_as_they_are_and_stay_marked(tmp_path, kind, modality):
    write_phantoms(kind, 2, 0, tmp_path / "source")
    info = ingest(tmp_path / "source", tmp_path / "out", IngestConfig(), seed=0)
    assert (info.name, info.modality, info.phantom) == (f"phantom_{kind}", modality, True)
    assert PreparedSet(tmp_path / "out").info == info


def test_the_hippocampus_set_comes_out_whole(real_data, tmp_path):
    info = ingest(real_data / "hippocampus", tmp_path / "out", IngestConfig(), seed=0)
    assert (info.modality, info.plane, info.spacing_mm, len(info.cases)) == ("MR", (64, 48), (1, 1, 1), 200)
    assert info.labels == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert [len(info.case_ids(split)) for split in ("train", "validation", "test")] == [140, 20, 40]
    prepared = PreparedSet(tmp_path / "out")
    for case_id in info.case_ids()[::40]:
        image, mask = unpadded(prepared, case_id)
        raw = nifti.read(real_data / "hippocampus" / "imagesTr" / f"{case_id}.nii.gz").volume
        raw_mask = nifti.read(real_data / "hippocampus" / "labelsTr" / f"{case_id}.nii.gz").volume
        low, high = np.percentile(raw.voxels, (0.5, 99.5))
        assert np.array_equal(mask.voxels, raw_mask.voxels)
        assert np.array_equal(mask.affine, raw.affine)
        # float16 in [-1, 1] holds 11 bits
        assert image.voxels == pytest.approx(np.clip(raw.voxels, low, high), abs=(high - low) / 2**11)


def test_42_labels_with_gaps_come_back_under_their_own_ids(real_data, tmp_path):
    folder = real_data / "abdomen_ct"
    ingest(
        folder,
        tmp_path / "out",
        IngestConfig(modality="CT"),
        seed=0,
        image_name="ct.nii.gz",
        mask_name="labels.nii.gz",
    )
    prepared, raw = PreparedSet(tmp_path / "out"), nifti.read(folder / "labels.nii.gz")
    assert len(prepared.info.labels) == 42
    assert prepared.read("abdomen_ct").mask.max() == 41
    image, mask = unpadded(prepared, "abdomen_ct")
    nifti.write(tmp_path / "mask.nii.gz", mask, prepared.info.axis_codes)
    assert np.array_equal(
        np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), np.asarray(nib.load(folder / "labels.nii.gz").dataobj)
    )
    assert np.array_equal(nib.load(tmp_path / "mask.nii.gz").affine, nib.load(folder / "labels.nii.gz").affine)
    assert nifti.read(tmp_path / "mask.nii.gz").dtype == raw.dtype
    ct = nifti.read(folder / "ct.nii.gz").volume.voxels
    assert image.voxels == pytest.approx(np.clip(ct, -1000, 1000), abs=0.5)  # a step of float16 near 1 is 0.5 HU


def test_a_dicom_series_with_a_nifti_mask_makes_the_round_trip(real_data, tmp_path):
    series = real_data / "dicom_series" / "hippocampus_mr"
    read = dicom.read_series(series)
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "images" / "one").symlink_to(series)
    (tmp_path / "source" / "labels").mkdir()
    bright = (read.volume.voxels > np.median(read.volume.voxels)).astype(np.uint8)
    mask = Volume(voxels=bright, affine=read.volume.affine)
    nifti.write(tmp_path / "source" / "labels" / "one.nii.gz", mask, "RAS")
    ingest(tmp_path / "source", tmp_path / "out", MR, seed=0)
    prepared = PreparedSet(tmp_path / "out")
    assert prepared.info.cases[0].shape == (35, 48, 36)
    assert (prepared.info.axis_codes, prepared.info.image_dtype) == ("LPS", "int16")
    _, came_back = unpadded(prepared, "one")
    assert np.array_equal(came_back.voxels, bright)
    assert np.array_equal(came_back.affine, read.volume.affine)


def test_a_dicom_series_is_the_same_volume_as_its_nifti_file(real_data, tmp_path):
    read = dicom.read_series(real_data / "dicom_series" / "hippocampus_mr")
    nifti.write(tmp_path / "a.nii.gz", read.volume, read.axis_codes, read.dtype)
    again = nifti.read(tmp_path / "a.nii.gz")
    assert (again.axis_codes, again.dtype) == (read.axis_codes, read.dtype)
    assert np.array_equal(again.volume.voxels, read.volume.voxels)
    assert np.array_equal(again.volume.affine, read.volume.affine)
