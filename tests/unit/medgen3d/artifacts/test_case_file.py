"""A case on disk: what is sliced is what was written, and no more is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.case_file import CHUNK, CaseFile, write_case_file
from medgen3d.core.errors import ArtifactError

SHAPE = (35, 130, 70)  # two chunks and a rest along every axis, or one and a rest


@pytest.fixture(scope="module")
def voxels():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, SHAPE).astype(np.float16).astype(np.float32), rng.integers(0, 300, SHAPE, np.uint16)


@pytest.fixture(scope="module")
def case(voxels, tmp_path_factory) -> CaseFile:
    path = tmp_path_factory.mktemp("case") / "a.arrow"
    write_case_file(path, *voxels, facts={"case_id": "a"})
    return CaseFile(path)


def keys(side: int):
    bounds = st.integers(0, side)
    return st.tuples(bounds, bounds).map(lambda pair: slice(*sorted(pair))) | st.integers(-side, side - 1)


@given(st.tuples(*map(keys, SHAPE)))
def test_any_box_is_that_of_the_whole(case, voxels, key):
    for stored, whole in zip((case.image, case.mask), voxels, strict=True):
        found = stored[key]
        np.testing.assert_array_equal(found, whole[key])
        assert found.dtype == stored.dtype == whole.dtype


def test_it_looks_like_an_array(case, voxels):
    assert (case.mask.shape, case.mask.ndim, len(case.mask)) == (SHAPE, 3, SHAPE[0])
    np.testing.assert_array_equal(case.mask[3:5], voxels[1][3:5])
    np.testing.assert_array_equal(np.asarray(case.mask), voxels[1])
    assert case.facts == {"case_id": "a"}
    with pytest.raises(IndexError, match="steps of 1, got 2"):
        case.mask[::2]
    with pytest.raises(IndexError):
        case.mask[SHAPE[0]]


def test_only_the_chunks_that_a_box_touches_are_read(case, monkeypatch):
    read = []
    exact = type(case.mask).chunk_values
    monkeypatch.setattr(
        type(case.mask), "chunk_values", lambda array, number: (read.append(number), exact(array, number))[1]
    )
    case.mask[CHUNK[0] : CHUNK[0] + 3, :10, :10]
    assert read == [6]  # 3 x 2 chunks lie in the slab before it
    read.clear()
    case.image[:, 5, 5]
    assert read == [0, 6, 12]


def test_damage_is_found_wherever_it_lies(case, voxels, tmp_path):
    content = case.path.read_bytes()
    case.check()
    damaged, seen = tmp_path / "damaged.arrow", []
    for place in range(8, len(content), len(content) // 40):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        damaged.write_bytes(bytes(flipped))
        try:
            found = CaseFile(damaged)
            found.check()
        except ArtifactError as error:
            seen.append(str(error))
        else:  # a byte that only fills up
            np.testing.assert_array_equal(found.image[:], voxels[0])
            np.testing.assert_array_equal(found.mask[:], voxels[1])
    assert len(seen) > 30
    assert all("damaged.arrow" in sentence and "Run ingest again" in sentence for sentence in seen)


def test_image_and_mask_of_two_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="differ in shape"):
        write_case_file(tmp_path / "a.arrow", np.zeros((2, 2, 2)), np.zeros((2, 2, 3), np.uint8), {})
    assert not (tmp_path / "a.arrow").exists()
