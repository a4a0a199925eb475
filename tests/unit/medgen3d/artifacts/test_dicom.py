"""DICOM series: sorted by position, rescaled, turned to RAS; what is missing or foreign is named."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

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
    assert "1 DICOM files" in refusal(tmp_path)
