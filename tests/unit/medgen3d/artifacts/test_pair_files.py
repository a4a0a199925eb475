import hashlib
import io
import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK

from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.pair_files import digest_of, encode_pair, pair_names
from medgen3d.artifacts.synthetic_set import (
    SyntheticSet,
    damages,
    merge_parts,
    open_for_writing,
    write_case,
    write_part,
)
from medgen3d.core.volume import Volume, affine_from_spacing

FORMATS = ("nifti", "parquet", "dicom")


def info_of(kind, **changes):
    fields = {
        "dataset_name": "knee",
        "dataset_digest": "d" * 64,
        "modality": "MR",
        "phantom": False,
        "labels": {0: "background", 4: "bone", 300: "cartilage"},
        "spacing_mm": (3.0, 0.5, 0.75),
        "axis_codes": "LPS",
        "image_dtype": "int16",
        "pipeline_name": "knee.pipeline",
        "pipeline_version": 2,
        "seed": 11,
        "config_hash": "c" * 64,
        "weights_sha256": {"refiner": "f" * 64},
        "batch": 8,
        "threads": 1,
        "device": "cpu",
        "format": kind,
    }
    return SyntheticSetInfo.model_validate(fields | changes)


def pair():
    rng = np.random.default_rng(3)
    affine = affine_from_spacing((3.0, 0.5, 0.75))
    image = rng.integers(-900, 900, size=(4, 5, 6)).astype(np.float32)
    mask = rng.choice(np.array([0, 4, 300], np.uint16), size=(4, 5, 6))
    return Volume(voxels=image, affine=affine), Volume(voxels=mask, affine=affine)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_pair_comes_back_as_it_was_written(kind, tmp_path):
    info, (image, mask) = info_of(kind), pair()
    open_for_writing(tmp_path, info)
    write_part(tmp_path, info, 0, [write_case(tmp_path, info, case_id="a", number=0, image=image, mask=mask)])
    merge_parts(tmp_path)
    found = SyntheticSet(tmp_path)
    read_image, read_mask = found.read("a")

    np.testing.assert_array_equal(read_image.voxels, image.voxels)
    np.testing.assert_array_equal(read_mask.voxels, mask.voxels)
    assert read_image.spacing_mm == pytest.approx(image.spacing_mm, abs=1e-6)
    assert list(damages(tmp_path, info, found.rows["a"])) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_pair_gives_the_same_bytes(kind):
    first, second = (encode_pair(info_of(kind), "a", *pair()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_or_missing_file_of_any_format_is_noticed(kind, tmp_path):
    info = info_of(kind)
    open_for_writing(tmp_path, info)
    row = write_case(tmp_path, info, case_id="a", number=0, image=pair()[0], mask=pair()[1])
    images, labels = pair_names(kind, "a", 4)
    (tmp_path / images[-1]).write_bytes(b"half")
    assert "SHA-256" in str(next(damages(tmp_path, info, row)))
    (tmp_path / labels[0]).unlink()
    assert "no such file" in str(list(damages(tmp_path, info, row))[-1])


def test_the_digest_of_one_file_is_its_own_and_of_several_that_of_their_digests():
    one, other = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert digest_of([b"1"]) == one
    assert digest_of([b"1", b"2"]) == hashlib.sha256((one + other).encode()).hexdigest()


def test_a_parquet_pair_is_one_row_that_any_reader_understands():
    ((name, content),) = encode_pair(info_of("parquet"), "a", *pair())[0].items()
    (row,) = pq.read_table(io.BytesIO(content)).to_pylist()

    assert name == "pairs/a.parquet"
    assert (row["shape"], row["spacing_mm"]) == ([4, 5, 6], [3.0, 0.5, 0.75])
    voxels = np.frombuffer(row["image"], row["image_dtype"]).reshape(row["shape"])
    np.testing.assert_array_equal(voxels, pair()[0].voxels)


def test_a_dicom_slice_lies_where_scanners_put_it_and_the_segmentation_refers_to_it():
    slices, segmentations = encode_pair(info_of("dicom"), "syn_00007", *pair())
    files = [pydicom.dcmread(io.BytesIO(content)) for content in slices.values()]
    found = hd.seg.segread(io.BytesIO(segmentations["dicom/syn_00007/segmentation.dcm"]))

    top = files[-1]
    # The first pixel is the right, anterior corner: x = 5 * 0.75 mm and y = 4 * 0.5 mm to the right and front in RAS.
    assert [float(value) for value in top.ImagePositionPatient] == pytest.approx([-3.75, -2.0, 9.0])
    assert top.pixel_array[0, 0] == pair()[0].voxels[3, 4, 5]
    assert [float(value) for value in top.PixelSpacing] == [0.5, 0.75]
    assert top.PatientName == "SYNTHETIC^syn_00007"
    assert len({file.SeriesInstanceUID for file in files}) == 1
    assert [found.get_segment_description(number).segment_label for number in (1, 2)] == ["bone", "cartilage"]
    referred = {uid for _, _, uid in found.get_source_image_uids()}
    assert referred == {file.SOPInstanceUID for file in files}


def test_a_dicom_image_of_fractions_is_stored_to_16_bits_of_its_range():
    image, mask = pair()
    image = Volume(voxels=image.voxels / 7, affine=image.affine)
    slices, _ = encode_pair(info_of("dicom", image_dtype="float32"), "a", image, mask)
    first = pydicom.dcmread(io.BytesIO(slices["dicom/a/image/0000.dcm"]))
    values = first.pixel_array * float(first.RescaleSlope) + float(first.RescaleIntercept)

    step = np.ptp(image.voxels) / 65535
    np.testing.assert_allclose(values[::-1, ::-1], image.voxels[0], atol=0.51 * step)


def test_a_dicom_image_of_whole_numbers_is_the_nifti_of_the_same_pair_to_any_reader(tmp_path):
    image, mask = pair()
    image = Volume(voxels=image.voxels + 0.3, affine=image.affine)
    for kind in ("dicom", "nifti"):
        contents, _ = encode_pair(info_of(kind, modality="CT"), "a", image, mask)
        for name, content in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "dicom/a/image")))
    series, volume = reader.Execute(), SimpleITK.ReadImage(tmp_path / "images/a.nii.gz")
    assert series.GetPixelIDTypeAsString() == "16-bit signed integer"
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayFromImage, (series, volume)))
    for corner in ((0, 0, 0), (5, 4, 3)):
        places = [each.TransformIndexToPhysicalPoint(corner) for each in (series, volume)]
        assert places[0] == pytest.approx(places[1], abs=1e-5)


def test_segments_have_labels_of_their_own_in_any_script():
    long = "a very long name of an organ that goes on " * 3
    named = {1: "печень", 2: "肝臓", 3: "left\\right", 4: long + "upper", 5: long + "lower", 6: "a\nb"}
    info = info_of("dicom", labels={0: "background"} | named)
    mask = Volume(voxels=np.arange(120).reshape(4, 5, 6) % 7, affine=pair()[0].affine)
    _, files = encode_pair(info, "a", pair()[0], mask)
    (content,) = files.values()
    segments = pydicom.dcmread(io.BytesIO(content)).SegmentSequence
    labels = [segment.SegmentLabel for segment in segments]
    assert labels[:3] == ["печень", "肝臓", "left/right"]
    assert labels[5] == "a b"
    assert len(set(labels)) == 6
    assert max(map(len, labels)) <= 64
    assert [label[-4:] for label in labels[3:5]] == [" (4)", " (5)"]
    assert segments[3].SegmentDescription == f"Label id 4: {long}upper"


def test_names_of_rows_with_another_depth_are_their_own():
    row = ManifestRow(case_id="a", number=0, shape=(2, 1, 1), status="done")
    assert pair_names("dicom", row.case_id, row.shape[0])[0] == ("dicom/a/image/0000.dcm", "dicom/a/image/0001.dcm")


def test_labels_that_are_numbered_anew_come_back_with_their_own_ids(tmp_path):
    info = info_of("nifti").model_copy(update={"label_ids": "consecutive"})
    assert info.label_table.has_gaps
    image, mask = pair()
    open_for_writing(tmp_path, info)
    write_part(tmp_path, info, 0, [write_case(tmp_path, info, case_id="a", number=0, image=image, mask=mask)])
    merge_parts(tmp_path)

    by_nibabel = np.asanyarray(nib.load(tmp_path / "labels" / "a.nii.gz").dataobj)
    numbers = {label_id: number for number, label_id in enumerate(info.label_table.original_ids)}
    expected = np.vectorize(numbers.get)(mask.voxels)
    assert sorted(by_nibabel.ravel()) == sorted(expected.ravel())
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert sorted(description["labels"].values()) == list(range(len(info.labels)))
    assert list(description["original_ids"].values()) == list(info.label_table.original_ids)
    np.testing.assert_array_equal(SyntheticSet(tmp_path).read("a")[1].voxels, mask.voxels)
