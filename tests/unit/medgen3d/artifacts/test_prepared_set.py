"""The prepared set: a round trip, and every way in which one on disk can be damaged."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from medgen3d.artifacts import case_file
from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    PreparedCase,
    PreparedSet,
    case_path,
    holds_case,
    write_info,
    write_prepared_case,
)
from medgen3d.core.errors import ArtifactError
from medgen3d.core.volume import Box

NUM_CASES = 3
CASE_IDS = [f"case_{number:02d}" for number in range(NUM_CASES)]


def prepared_case(case_id: str, mask_dtype: type = np.uint8) -> PreparedCase:
    rng = np.random.default_rng(CASE_IDS.index(case_id))
    box = Box(top=2, bottom=6, left=1, right=7)
    mask = np.zeros((3, 8, 8), dtype=mask_dtype)
    mask[:, box.rows, box.columns] = rng.integers(0, 3, (3, 4, 6))
    return PreparedCase(
        case_id=case_id,
        split="train",
        image=rng.uniform(-1, 1, (3, 8, 8)).astype(np.float16).astype(np.float32),
        mask=mask,
        box=box,
        affine=np.diag([0.7, 0.7, 1 / 3, 1]),
        intensity=Intensity(low=-3.5, high=1e6),
    )


@pytest.fixture
def info() -> DatasetInfo:
    return DatasetInfo(
        name="tiny",
        modality="MR",
        labels={0: "background", 7: "left", 300: "right"},
        spacing_mm=(1 / 3, 0.7, 0.7),
        plane=(8, 8),
        intensity={"kind": "percentiles", "low": 0.5, "high": 99.5},
        inverse=Intensity(low=0, high=1),
        seed=0,
        patients_known=False,
        cases=[
            CaseEntry(case_id=case, patient=case, split="train", shape=(3, 4, 6), sources_sha256={})
            for case in CASE_IDS
        ],
    )


@pytest.fixture
def root(tmp_path, info) -> Path:
    for number, case in enumerate(CASE_IDS):
        write_prepared_case(tmp_path, number, prepared_case(case))
    write_info(tmp_path, info)
    return tmp_path


@pytest.mark.parametrize("case_id", [CASE_IDS[0], CASE_IDS[-1]])
def test_a_case_comes_back_as_it_was_written(root, info, case_id):
    opened = PreparedSet(root)
    read, written = opened.read(case_id), prepared_case(case_id)
    assert opened.info == info
    assert len(opened) == NUM_CASES
    assert np.array_equal(read.image, written.image)
    assert read.image.dtype == np.float32
    assert np.array_equal(read.mask, written.mask)
    assert np.array_equal(read.affine, written.affine)
    assert (read.case_id, read.split, read.box, read.intensity) == (
        case_id,
        written.split,
        written.box,
        written.intensity,
    )


def test_masks_with_many_labels_keep_their_type(tmp_path, info):
    write_prepared_case(tmp_path, 0, prepared_case(CASE_IDS[0], np.uint16))
    write_info(tmp_path, info.model_copy(update={"cases": info.cases[:1]}))
    assert PreparedSet(tmp_path).read(CASE_IDS[0]).mask.dtype == np.uint16


def test_the_digest_tells_data_sets_apart_by_description_and_by_any_voxel(root, info):
    before = PreparedSet(root).digest
    assert PreparedSet(root).digest == before
    case = prepared_case(CASE_IDS[0])
    case.mask[0, 0, 0] ^= 1
    write_prepared_case(root, 0, case)
    other_voxel = PreparedSet(root).digest
    write_info(root, info.model_copy(update={"seed": 1}))
    assert len({before, other_voxel, PreparedSet(root).digest}) == 3


def test_the_digest_is_of_what_a_set_holds_and_not_of_how_its_files_are_laid_out(root, monkeypatch):
    before, size = PreparedSet(root).digest, case_path(root, 0).stat().st_size
    monkeypatch.setattr(case_file, "CHUNK", (2, 3, 3))
    write_prepared_case(root, 0, prepared_case(CASE_IDS[0]))
    assert case_path(root, 0).stat().st_size != size
    assert PreparedSet(root).digest == before


@pytest.mark.parametrize(
    "damage", [(b'"intensity": [', b'"intensity":[ '), (b'"box"', b'"fox"'), (b'"crc32"', b'"crc23"')]
)
def test_a_description_that_is_damaged_is_noticed_and_makes_its_case_missing(root, damage):
    path = case_path(root, 0)
    content = path.read_bytes()
    path.write_bytes(content.replace(*damage))
    assert path.read_bytes() != content
    assert not holds_case(root, 0, CASE_IDS[0])
    with pytest.raises(ArtifactError, match=r"a description that is missing, damaged .* Run ingest again"):
        PreparedSet(root).read(CASE_IDS[0])


def test_a_folder_without_a_table_of_contents_is_no_prepared_set(root):
    (root / "dataset.yaml").unlink()
    with pytest.raises(ArtifactError, match=r"no such file.*Make one with `medgen3d ingest`"):
        PreparedSet(root)


def test_another_schema_version_is_refused(root, info):
    content = info.model_dump(mode="json") | {"schema_version": 99}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ArtifactError, match="schema version 99, expected version 3"):
        PreparedSet(root)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "schema_version: 1", "\x00"])
def test_a_damaged_table_of_contents_is_refused(root, text):
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(ArtifactError, match=r"dataset\.yaml"):
        PreparedSet(root)


def test_an_unknown_entry_in_the_table_of_contents_is_named(root, info):
    content = info.model_dump(mode="json") | {"colour": "red"}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ArtifactError, match="colour"):
        PreparedSet(root)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_case_is_refused_with_its_name(root, share):
    content = case_path(root, 0).read_bytes()
    case_path(root, 0).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match=r"000000\.arrow.*Run ingest again"):
        PreparedSet(root).read(CASE_IDS[0])
    assert PreparedSet(root).read(CASE_IDS[-1]).case_id == CASE_IDS[-1]


def test_a_missing_case_is_refused(root):
    case_path(root, 2).unlink()
    with pytest.raises(ArtifactError, match=r"000002\.arrow"):
        PreparedSet(root).read(CASE_IDS[-1])


def test_a_case_of_another_data_set_is_refused(root):
    case_path(root, 2).replace(case_path(root, 0))
    with pytest.raises(ArtifactError, match=CASE_IDS[0]):
        PreparedSet(root).read(CASE_IDS[0])


def test_a_case_that_is_not_in_the_set_is_refused(root):
    with pytest.raises(ArtifactError, match="no case 'nobody'"):
        PreparedSet(root).read("nobody")


def test_a_sound_case_is_told_from_a_damaged_or_another_one(root):
    assert holds_case(root, 0, CASE_IDS[0])
    assert not holds_case(root, 1, CASE_IDS[0])
    assert not holds_case(root, 3, CASE_IDS[0])
    content = case_path(root, 0).read_bytes()
    for place in range(0, len(content), 97):  # wherever it lies, the voxels or what is said of them
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        case_path(root, 0).write_bytes(bytes(flipped))
        if holds_case(root, 0, CASE_IDS[0]):  # a byte that means nothing
            assert np.array_equal(PreparedSet(root).read(CASE_IDS[0]).image, prepared_case(CASE_IDS[0]).image)
            assert np.array_equal(PreparedSet(root).read(CASE_IDS[0]).mask, prepared_case(CASE_IDS[0]).mask)


def test_shapes_and_cases_are_listed_by_split(info):
    info.cases[0].split = "test"
    info.cases[1].shape = (5, 4, 6)
    assert info.case_ids("test") == CASE_IDS[:1]
    assert info.shapes("train") == {(3, 4, 6): NUM_CASES - 2, (5, 4, 6): 1}
