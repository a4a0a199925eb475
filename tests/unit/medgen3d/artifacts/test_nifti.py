"""NIfTI: what nibabel sees in a file is what we read, and what we write comes back exactly."""

import gzip
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Volume

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip
OBLIQUE = np.array([[0.7, -0.2, 0.1, -20.3], [0.2, 0.8, 0.05, 7.1], [-0.1, 0.02, 2.9, 55.7], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> Volume:
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[0.8, 0, 0, -10.5], [0, 0.7, 0, 3.3], [0, 0, 2.5, -100.1], [0, 0, 0, 1]])
    return Volume(voxels=voxels, affine=affine.astype(np.float32).astype(np.float64))


def saved(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_memory_order_is_z_y_x_of_the_ras_grid(tmp_path):
    array = np.zeros((2, 3, 4), dtype=np.uint8)  # x, y, z of a file in LAS: x grows to the left
    array[0, 1, 2] = 7  # the rightmost column
    file = nifti.read(saved(tmp_path / "a.nii.gz", array, np.diag([-1.0, 1, 1, 1])))
    assert file.axis_codes == "LAS"
    assert file.volume.voxels.shape == (4, 3, 2)
    assert file.volume.voxels[2, 1, 1] == 7
    # the voxel at x = 0 lay at 0 mm and still does, although its index is now 1
    assert np.array_equal(file.volume.affine @ [1, 1, 2, 1], [0, 1, 2, 1])


@pytest.mark.parametrize("axis_codes", ORIENTATIONS)
def test_a_volume_comes_back_from_every_orientation(tmp_path, volume, axis_codes):
    path = tmp_path / "a.nii.gz"
    nifti.write(path, volume, axis_codes)
    file = nifti.read(path)
    assert file.axis_codes == axis_codes == "".join(nib.aff2axcodes(nib.load(path).affine))
    assert file.dtype == "int16"
    assert np.array_equal(file.volume.voxels, volume.voxels)
    assert file.volume.spacing_mm == volume.spacing_mm
    assert file.volume.affine == pytest.approx(volume.affine, abs=1e-5)  # the origin of a flipped axis is rounded once
    nifti.write(tmp_path / "b.nii.gz", file.volume, file.axis_codes)
    assert np.array_equal(nifti.read(tmp_path / "b.nii.gz").volume.affine, file.volume.affine)
    assert (tmp_path / "b.nii.gz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("axis_codes", ["RAS", "LPS", "SAR"])
def test_every_voxel_keeps_its_place_in_the_patient(tmp_path, volume, axis_codes):
    nifti.write(tmp_path / "a.nii.gz", volume, axis_codes)
    image = nib.load(tmp_path / "a.nii.gz")
    index = np.argwhere(np.asarray(image.dataobj) == volume.voxels[1, 2, 0])[0]
    assert image.affine @ [*index, 1] == pytest.approx(volume.affine @ [0, 2, 1, 1], abs=1e-4)


def test_read_write_read_is_exact_for_an_oblique_file_with_only_a_qform(tmp_path):
    rotation, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = rotation * np.sign(np.diag(rotation)) * [0.7, 0.8, 2.9]
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), None)
    image.set_qform(affine, code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    first = nifti.read(tmp_path / "a.nii.gz")
    nifti.write(tmp_path / "b.nii.gz", first.volume, first.axis_codes, first.dtype)
    second = nifti.read(tmp_path / "b.nii.gz")
    assert np.array_equal(second.volume.affine, first.volume.affine)
    assert np.array_equal(second.volume.voxels, first.volume.voxels)


def test_sform_and_qform_agree(tmp_path, volume):
    nifti.write(tmp_path / "a.nii.gz", volume, "LPS")
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_qform() == pytest.approx(header.get_sform(), abs=1e-4)
    assert header.get_zooms() == pytest.approx((0.8, 0.7, 2.5))


def test_the_same_volume_gives_the_same_bytes_at_any_time_under_any_name(tmp_path, volume, monkeypatch):
    nifti.write(tmp_path / "a.nii.gz", volume)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    nifti.write(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_nothing_but_the_finished_file_is_left(tmp_path, volume):
    nifti.write(tmp_path / "a.nii.gz", volume)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_floats_are_rounded_and_clipped_into_an_integer_type(tmp_path, volume):
    voxels = np.array([[[-0.6, 1.5, 2.5, 300.0]]])
    nifti.write(tmp_path / "a.nii.gz", Volume(voxels=voxels, affine=np.eye(4)), dtype="uint8")
    assert nifti.read(tmp_path / "a.nii.gz").volume.voxels.tolist() == [[[0, 2, 2, 255]]]


def test_a_label_that_does_not_fit_is_refused(tmp_path):
    mask = Volume(voxels=np.array([[[0, 300]]]), affine=np.eye(4))
    with pytest.raises(ValueError, match="0 to 300 do not fit voxel type uint8"):
        nifti.write(tmp_path / "a.nii.gz", mask, dtype="uint8")


def test_scale_and_intercept_of_the_header_are_applied(tmp_path):
    header = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4)).header
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, 0.5, -10
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + b"\0" * 4 + np.full(8, 30, dtype="<i2").tobytes())
    file = nifti.read(path)
    assert (file.volume.voxels == 30 * 0.5 - 10).all()
    assert file.dtype == "float32"


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<u2", "int32", ">f4", "float64"])
def test_every_voxel_type_and_byte_order_is_read_as_written(tmp_path, dtype):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(array.dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4), header), tmp_path / "a.nii")
    file = nifti.read(tmp_path / "a.nii")
    assert np.array_equal(file.volume.voxels, array.transpose(2, 1, 0))
    assert file.dtype == np.dtype(dtype).newbyteorder("=").name


def test_nifti_2_is_read(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, np.diag([1.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    file = nifti.read(tmp_path / "a.nii.gz")
    assert np.array_equal(file.volume.voxels, array.transpose(2, 1, 0))
    assert file.volume.spacing_mm == (3, 2, 1)


def test_trailing_axes_of_length_one_are_dropped(tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.zeros((2, 3, 4, 1, 1), dtype=np.uint8))
    assert nifti.read(path).volume.voxels.shape == (4, 3, 2)


def refusal(path: Path, **limits: int) -> str:
    with pytest.raises(VolumeFileError) as caught:
        nifti.read(path, **limits)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(4, 4, 4, 2), (4, 4, 1, 3)])
def test_several_volumes_in_one_file_are_refused(tmp_path, shape):
    path = saved(tmp_path / "a.nii.gz", np.zeros(shape, dtype=np.uint8))
    assert "4 axes" in refusal(path)
    assert "Extract a single volume" in refusal(path)


def test_a_flat_picture_is_refused(tmp_path):
    assert "2 axes" in refusal(saved(tmp_path / "a.nii.gz", np.zeros((4, 4), dtype=np.uint8)))


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.nii.gz")


def test_another_file_type_is_refused(tmp_path):
    assert "another file type" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_gzip_file_is_refused_wherever_it_ends(tmp_path, share):
    path = saved(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 255, (20, 20, 20), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "Restore or export the file again." in refusal(path)


def test_a_truncated_uncompressed_file_is_refused_with_both_sizes(tmp_path):
    path = saved(tmp_path / "a.nii", np.zeros((4, 4, 4), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-10])
    assert "54 of 64 bytes" in refusal(path)


def test_a_flipped_bit_is_noticed_by_the_checksum(tmp_path):
    path = tmp_path / "a.nii.gz"
    saved(path, np.random.default_rng(0).integers(0, 255, (9, 9, 9), dtype=np.uint8))
    plain = gzip.decompress(path.read_bytes())
    stored = bytearray(gzip.compress(plain, compresslevel=0))  # stored blocks: the stream itself stays valid
    stored[600] ^= 1
    path.write_bytes(bytes(stored))
    assert "damaged gzip" in refusal(path)


def test_what_is_not_gzip_or_not_nifti_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"neither gzip nor NIfTI")
    assert "no valid NIfTI header" in refusal(path)
    path.write_bytes(b"\x1f\x8b and no more")
    assert "damaged gzip" in refusal(path)
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert "no valid NIfTI header" in refusal(path)


def test_a_file_larger_than_allowed_is_refused_before_its_voxels_are_read(tmp_path):
    image = nib.Nifti1Image(np.zeros((1, 1, 1), dtype=np.float64), np.eye(4))
    image.header.set_data_shape((30000, 30000, 30000))  # 216 TB, of which the file holds nothing
    image.header["magic"], image.header["vox_offset"] = b"n+1", 352
    path = tmp_path / "a.nii"
    path.write_bytes(image.header.binaryblock + b"\0" * 4)
    assert "216000000000000 bytes" in refusal(path)


def test_the_limit_is_the_number_of_voxel_bytes(tmp_path):
    path = saved(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), dtype=np.int16))
    nifti.read(path, max_bytes=128)
    assert "at most 127 bytes" in refusal(path, max_bytes=127)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_an_affine_without_size_or_place_is_refused(tmp_path, bad):
    path = saved(tmp_path / "a.nii", np.zeros((4, 4, 4), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(bad).tobytes()  # srow_x[0]
    path.write_bytes(bytes(content))
    assert "not finite or not invertible" in refusal(path)


def test_colours_and_complex_numbers_are_refused(tmp_path):
    assert "complex64" in refusal(saved(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), dtype=np.complex64)))


@pytest.mark.parametrize("axis_codes", ORIENTATIONS)
def test_a_header_tells_shape_and_spacing_in_ras_order_without_the_voxels(tmp_path, volume, axis_codes):
    nifti.write(tmp_path / "a.nii.gz", volume, axis_codes)
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "head.nii").write_bytes(content[:352])  # no voxels follow
    header = nifti.read_header(tmp_path / "head.nii")
    assert header.shape == (2, 3, 4)
    assert header.spacing_mm == pytest.approx((2.5, 0.7, 0.8))
    assert sorted(header.axes) == [2, 3, 4]
    assert sorted(header.pixdim) == pytest.approx([0.7, 0.8, 2.5])


def test_a_header_keeps_what_nibabel_would_correct(tmp_path, volume):
    nifti.write(tmp_path / "a.nii.gz", volume)
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    content[80:84] = np.float32(-0.8).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert nifti.read_header(tmp_path / "a.nii").pixdim[0] == pytest.approx(-0.8)
    content[0:4] = np.int32(347).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(VolumeFileError, match="sizeof_hdr 347 in the header, expected 348"):
        nifti.read_header(tmp_path / "a.nii")


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, -352.0, 0.0, 1e30])
def test_voxels_at_an_impossible_place_are_refused(tmp_path, volume, offset):
    nifti.write(tmp_path / "a.nii.gz", volume)
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    content[108:112] = np.float32(offset).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    for reader in (nifti.read, nifti.read_header):
        with pytest.raises(VolumeFileError):
            reader(tmp_path / "a.nii")


@pytest.mark.parametrize(("name", "compressed"), [("A.NII.GZ", True), ("a.nii", True), ("a.nii.gz", False)])
def test_whether_a_file_is_compressed_its_bytes_say(tmp_path, name, compressed):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    plain = saved(tmp_path / "plain.nii", voxels).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(plain) if compressed else plain)
    assert np.array_equal(nifti.read(tmp_path / name).volume.voxels.transpose(2, 1, 0), voxels)


def test_a_large_header_extension_is_passed_over(tmp_path):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 3_000_000))
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(nifti.read(tmp_path / "a.nii.gz").volume.voxels.transpose(2, 1, 0), voxels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_memory_is_taken_for_what_is_there_and_not_for_what_the_header_says(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    image = nib.Nifti1Image(np.zeros((1, 1, 1), dtype=np.uint8), np.eye(4))
    image.header.set_data_shape((1000, 1000, 1000))
    image.header["magic"], image.header["vox_offset"] = b"n+1", 352
    content = image.header.binaryblock + bytes(4 + 1000)
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    tracemalloc.start()
    try:
        assert "a truncated file with 1000 of 1000000000 bytes" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def read_fuzzed(path: Path, fuzzed: Callable[[bytes, int], bytes], seeds: range) -> int:
    """Reads a file with damaged headers; how often that was refused. Nothing but a sentence may come of it."""
    volume = Volume(voxels=np.zeros((6, 7, 8), np.uint8), affine=np.diag([0.5, 1, 2, 1]))
    sound, refused = gzip.decompress(nifti.encode(volume)), 0
    with np.errstate(all="raise"):
        for seed in seeds:
            path.write_bytes(fuzzed(sound[:352], seed) + sound[352:])
            try:
                nifti.read_header(path)
                nifti.read(path)
            except VolumeFileError:
                refused += 1
    return refused


def test_damaged_headers_give_a_sentence_or_a_reading(tmp_path, fuzzed_header):
    assert 100 < read_fuzzed(tmp_path / "a.nii", fuzzed_header, range(400)) < 390


@pytest.mark.soak
def test_many_damaged_headers_give_a_sentence_or_a_reading(tmp_path, fuzzed_header):
    assert read_fuzzed(tmp_path / "a.nii", fuzzed_header, range(1000, 21000)) > 5000
