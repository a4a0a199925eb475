"""DICOM series: sorted by position, rescaled, turned to RAS; what is missing or foreign is named."""

import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from medgen3d.artifacts import dicom
from medgen3d.core.errors import VolumeFileError

SERIES = generate_uid()
NUM_SLICES = 5


def write_slice(path: Path, pixels: np.ndarray, height_mm: float, **attributes: object) -> None:
    """One axial slice: columns run to the left, rows to the back, 0.5 mm between rows and 0.25 mm between columns."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.SeriesInstanceUID = "MR", SERIES
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.PixelSpacing, file.ImageOrientationPatient = [0.5, 0.25], [1, 0, 0, 0, 1, 0]
    file.ImagePositionPatient = [10, 20, height_mm]
    file.PixelData = pixels.astype("<i2").tobytes()
    for name, value in attributes.items():
        setattr(file, name, value)
    file.save_as(path)


@pytest.fixture
def series(tmp_path) -> Path:
    """Slices of value 100 * (1 + number), 2 mm apart; names in the reverse of their order in space."""
    for number in range(NUM_SLICES):
        pixels = np.full((4, 3), 100 * (1 + number))
        pixels[0, 0] = 7
        write_slice(tmp_path / f"{NUM_SLICES - number}.dcm", pixels, height_mm=-3 + 2.0 * number)
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(VolumeFileError) as caught:
        dicom.read_series(folder)
    return str(caught.value)


def test_slices_are_sorted_by_position_and_turned_to_ras(series):
    file = dicom.read_series(series)
    voxels = file.volume.voxels
    assert file.axis_codes == "LPS"
    assert file.dtype == "int16"
    assert voxels.shape == (NUM_SLICES, 4, 3)
    assert voxels[:, 0, 0].tolist() == [100, 200, 300, 400, 500]
    # the first stored pixel is the rightmost and foremost one: last in RAS order
    assert (voxels == 7).nonzero()[1].tolist() == [3] * NUM_SLICES
    assert (voxels == 7).nonzero()[2].tolist() == [2] * NUM_SLICES


def test_spacing_and_place_follow_from_the_headers(series):
    volume = dicom.read_series(series).volume
    assert volume.spacing_mm == (2.0, 0.5, 0.25)
    # DICOM says left 10, posterior 20; that is x = -10, y = -20 in RAS
    assert np.array_equal(volume.affine @ [2, 3, 0, 1], [-10, -20, -3, 1])


def test_rescale_slope_and_intercept_are_applied_per_slice(tmp_path):
    for number, intercept in enumerate((-1024, -1000)):
        write_slice(
            tmp_path / f"{number}.dcm", np.full((2, 2), 10), float(number), RescaleSlope=2, RescaleIntercept=intercept
        )
    file = dicom.read_series(tmp_path)
    assert file.volume.voxels[:, 0, 0].tolist() == [-1004, -980]
    assert file.dtype == "int16"


def test_fractional_rescaling_gives_floats(tmp_path):
    for number in range(2):
        write_slice(
            tmp_path / f"{number}.dcm", np.full((2, 2), 10), float(number), RescaleSlope=0.25, RescaleIntercept=1
        )
    file = dicom.read_series(tmp_path)
    assert file.dtype == "float32"
    assert (file.volume.voxels == 3.5).all()


def test_rescaled_values_beyond_16_bits_are_kept(tmp_path):
    for number in range(2):
        write_slice(tmp_path / f"{number}.dcm", np.full((2, 2), 30000), float(number), RescaleSlope=2)
    assert (dicom.read_series(tmp_path).volume.voxels == 60000).all()


def test_a_sagittal_series_is_turned_too(tmp_path):
    for number in range(3):
        write_slice(
            tmp_path / f"{number}.dcm",
            np.arange(12).reshape(4, 3),
            0,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[number * 1.5, 0, 0],
        )
    file = dicom.read_series(tmp_path)
    assert file.volume.spacing_mm == (0.5, 0.25, 1.5)
    assert file.volume.voxels.shape == (4, 3, 3)
    assert file.axis_codes[2] in "LR"


def test_a_missing_slice_is_found_and_its_neighbours_named(series):
    (series / "3.dcm").unlink()
    sentence = refusal(series)
    assert "a missing slice: 4 mm between 4.dcm and 2.dcm" in sentence
    assert "slices every 2 mm" in sentence


def test_a_doubled_slice_is_found(series):
    write_slice(series / "9.dcm", np.ones((4, 3)), height_mm=1.0)
    assert "a doubled or displaced slice: 0 mm between 3.dcm and 9.dcm" in refusal(series)


def test_files_that_are_not_dicom_are_named(series):
    (series / "notes.txt").write_text("x" * 300)
    (series / "old").mkdir()
    assert "files that are not DICOM: notes.txt, old" in refusal(series)


def test_hidden_files_do_not_count(series):
    (series / ".DS_Store").write_text("x")
    assert dicom.read_series(series).volume.voxels.shape[0] == NUM_SLICES


def test_a_second_series_is_refused(series):
    write_slice(series / "9.dcm", np.ones((4, 3)), 7.0, SeriesInstanceUID=generate_uid())
    assert "2 series" in refusal(series)


@pytest.mark.parametrize(
    ("pixels", "attributes", "what"),
    [
        (np.ones((5, 3)), {}, "size (5, 3)"),
        (np.ones((4, 3)), {"PixelSpacing": [0.5, 0.3]}, "pixel spacing (0.5, 0.3)"),
        (np.ones((4, 3)), {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "orientation"),
    ],
)
def test_a_slice_unlike_the_others_is_named(series, pixels, attributes, what):
    write_slice(series / "9.dcm", pixels, 7.0, **attributes)
    assert what in refusal(series)
    assert "9.dcm" in refusal(series)


def test_tilted_slices_are_refused(tmp_path):
    for number in range(3):
        write_slice(tmp_path / f"{number}.dcm", np.ones((2, 2)), 0, ImagePositionPatient=[0, number * 0.5, number * 2])
    assert "tilted slices" in refusal(tmp_path)


def test_a_truncated_slice_is_named(series):
    content = (series / "2.dcm").read_bytes()
    (series / "2.dcm").write_bytes(content[:-9])
    assert "2.dcm" in refusal(series)


def test_a_slice_without_a_position_is_named(series):
    file = pydicom.dcmread(series / "2.dcm")
    del file.ImagePositionPatient
    file.save_as(series / "2.dcm")
    assert "2.dcm" in refusal(series)
    assert "ImagePositionPatient" in refusal(series)


def test_a_single_slice_is_no_series(tmp_path):
    write_slice(tmp_path / "1.dcm", np.ones((2, 2)), 0.0)
    assert "1 DICOM slices" in refusal(tmp_path)


@pytest.mark.parametrize("distance_mm", [0.625, 1.25, 0.8])
def test_positions_that_a_scanner_rounded_are_even(tmp_path, distance_mm):
    for number in range(12):
        height = round(distance_mm * number, 1)
        write_slice(tmp_path / f"{number:02d}.dcm", np.full((3, 3), number), height)
    volume = dicom.read_series(tmp_path).volume
    assert volume.spacing_mm[0] == pytest.approx(distance_mm, abs=0.005)
    assert volume.voxels[:, 0, 0].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("heights", "what"),
    [
        ([0, 2, 4, 8, 10], "a missing slice: 4 mm between 2.dcm and 3.dcm"),
        ([0, 2, 4, 7.1, 9.1], "uneven spacing: 3.1 mm between 2.dcm and 3.dcm"),
        ([0, 2, 4, 4.3, 6.3], "a doubled or displaced slice: 0.3 mm between 2.dcm and 3.dcm"),
        ([0, 2, 4] * 2, "2 slices at each position"),
    ],
)
def test_what_is_wrong_with_the_spacing_is_said(tmp_path, heights, what):
    for number, height in enumerate(heights):
        write_slice(tmp_path / f"{number}.dcm", np.ones((3, 3)), height)
    assert what in refusal(tmp_path)


def test_directions_that_differ_in_the_fourth_digit_are_the_same(series):
    write_slice(series / "0.dcm", np.ones((4, 3)), 7.0, ImageOrientationPatient=[1, 0.0004, 0, -0.0004, 1, 0])
    assert dicom.read_series(series).volume.voxels.shape[0] == NUM_SLICES + 1


def test_objects_without_an_image_are_left_out_and_named(series):
    for name, kind, modality in (
        ("a.dcm", "1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        ("DICOMDIR", MediaStorageDirectoryStorage, None),
    ):
        file = pydicom.dcmread(series / "1.dcm")
        del file.PixelData, file.Rows, file.Columns
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = kind
        file.Modality, file.SeriesInstanceUID = modality, generate_uid()
        file.save_as(series / name)
    found = dicom.read_series(series)
    assert found.volume.voxels.shape[0] == NUM_SLICES
    assert found.notes == ("objects without an image left out: DICOMDIR, a.dcm",)


def enhanced(folder: Path, series: Path) -> Path:
    """The slices of a series as one multi-frame file, made by highdicom."""
    slices = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
    for number, one in enumerate(slices):
        one.StudyInstanceUID, one.FrameOfReferenceUID, one.InstanceNumber = SERIES, SERIES, number + 1
        one.StudyDate, one.StudyTime, one.StudyID, one.SeriesNumber = "20200101", "000000", "1", 1
        one.ContentDate, one.ContentTime, one.ImageType = "20200101", "000000", ["ORIGINAL", "PRIMARY", "OTHER"]
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 2, -10, "US"
        for name in ("AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"):
            setattr(one, name, "")
        one.PatientID, one.PatientName = "x", "x^"
        one.PositionReferenceIndicator, one.Manufacturer = "", "x"
    folder.mkdir()
    made = LegacyConvertedEnhancedMRImage(slices, generate_uid(), 2, generate_uid(), 1)
    made.save_as(folder / "all.dcm")
    return folder / "all.dcm"


def test_an_enhanced_multi_frame_file_is_read_as_its_slices_are(series, tmp_path_factory):
    file, single = enhanced(tmp_path_factory.mktemp("enhanced") / "c", series), dicom.read_series(series)
    for place in (file, file.parent):
        found = dicom.read_series(place)
        assert np.array_equal(found.volume.voxels, 2 * single.volume.voxels - 10)
        assert np.array_equal(found.volume.affine, single.volume.affine)


def test_frames_without_a_place_are_refused(series):
    file = pydicom.dcmread(series / "1.dcm")
    file.NumberOfFrames, file.PixelData = 2, 2 * file.PixelData
    file.save_as(series / "1.dcm")
    assert "2 frames without a place each" in refusal(series)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pixels_are_read(tmp_path, syntax):
    stored = np.random.default_rng(0).integers(-1000, 1000, (2, 64, 48))
    for number, pixels in enumerate(stored):
        write_slice(tmp_path / f"{number}.dcm", pixels, number)
        file = pydicom.dcmread(tmp_path / f"{number}.dcm")
        file.compress(syntax)
        file.save_as(tmp_path / f"{number}.dcm")
    assert np.array_equal(dicom.read_series(tmp_path).volume.voxels, stored[:, ::-1, ::-1])


def test_pixels_that_nothing_here_decompresses_name_what_does(series):
    file = pydicom.dcmread(series / "1.dcm")
    file.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    file["PixelData"].is_undefined_length = True
    file.save_as(series / "1.dcm")
    assert "JPEG Lossless, Non-Hierarchical" in refusal(series)
    assert "Install medgen3d[dicom], or decompress" in refusal(series)


def test_inverted_grey_levels_are_refused(series):
    file = pydicom.dcmread(series / "1.dcm")
    file.PhotometricInterpretation = "MONOCHROME1"
    file.save_as(series / "1.dcm")
    assert "MONOCHROME1, in which larger numbers are darker" in refusal(series)


def test_colours_are_refused(series):
    file = pydicom.dcmread(series / "1.dcm")
    file.PhotometricInterpretation, file.SamplesPerPixel = "RGB", 3
    file.save_as(series / "1.dcm")
    assert "an image in colours (RGB)" in refusal(series)


def test_padding_outside_the_field_of_view_becomes_the_smallest_value_within(tmp_path):
    for number in range(2):
        pixels = np.array([[-2000, 24], [1064, 1024]])
        write_slice(
            tmp_path / f"{number}.dcm", pixels, number, PixelPaddingValue=-2000, RescaleSlope=1, RescaleIntercept=-1024
        )
    assert sorted(dicom.read_series(tmp_path).volume.voxels[0].ravel()) == [-1000, -1000, 0, 40]


def fuzzed(content: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(content[: int(rng.integers(len(content) // 2, len(content) + 1))])
    for place in rng.integers(0, len(changed), int(rng.integers(1, 12))):
        changed[place] = rng.integers(256)
    return bytes(changed)


def read_fuzzed(series: Path, seeds: range) -> int:
    """Reads a series whose first file is damaged; how often that was refused. Nothing but a sentence may come of it."""
    first, sentences = series / "1.dcm", []
    sound = first.read_bytes()
    for seed in seeds:
        first.write_bytes(fuzzed(sound, seed))
        tracemalloc.start()
        try:
            dicom.read_series(series)
        except VolumeFileError as error:
            sentences.append(str(error))
        finally:
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert taken < 4 * len(sound) + 2**21
    assert max(map(len, sentences)) < 1000
    assert not any("\n" in sentence for sentence in sentences)
    return len(sentences)


def test_damaged_bytes_give_a_sentence_or_a_reading_and_take_no_memory(series):
    assert read_fuzzed(series, range(150)) > 30


@pytest.mark.soak
def test_many_damaged_bytes_give_a_sentence_or_a_reading(series):
    assert read_fuzzed(series, range(1000, 11000)) > 2000
