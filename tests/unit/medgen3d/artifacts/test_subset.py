"""Subsets: nested, complete in themselves, and with no trace of the other cases."""

from pathlib import Path

import numpy as np
import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    PreparedCase,
    PreparedSet,
    write_info,
    write_prepared_case,
)
from medgen3d.artifacts.subset import nested_order, write_subset
from medgen3d.core.errors import DataError
from medgen3d.core.volume import Box

NUM_TRAIN = 8
TRAIN = [f"case_{number:02d}" for number in range(NUM_TRAIN)]
OTHERS = {"held_back_1": "validation", "held_back_2": "test"}


def case(case_id: str, number: int) -> PreparedCase:
    """Case i has D = 2 + i slices and the intensity map 10 i .. 100 + i."""
    rng = np.random.default_rng(number)
    shape = (2 + number, 8, 8)
    return PreparedCase(
        case_id=case_id,
        split=OTHERS.get(case_id, "train"),
        image=rng.uniform(-1, 1, shape).astype(np.float16).astype(np.float32),
        mask=rng.integers(0, 3, shape, dtype=np.uint8),
        box=Box(top=0, bottom=8, left=1, right=7),
        affine=np.diag([0.7, 0.7, 1.0, 1.0]),
        intensity=Intensity(low=10 * number, high=100 + number),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> PreparedSet:
    root = tmp_path_factory.mktemp("source")
    case_ids = [*OTHERS, *TRAIN]
    cases = [case(case_id, number) for number, case_id in enumerate(case_ids)]
    for number, one in enumerate(cases):
        write_prepared_case(root, number, one)
    entries = [
        CaseEntry(case_id=one.case_id, patient=one.case_id, split=one.split, shape=(2 + i, 8, 6), sources_sha256={})
        for i, one in enumerate(cases)
    ]
    info = DatasetInfo(
        name="tiny",
        modality="MR",
        labels={0: "background", 1: "left", 2: "right"},
        spacing_mm=(1.0, 0.7, 0.7),
        plane=(8, 8),
        intensity={"kind": "percentiles", "low": 0.5, "high": 99.5},
        inverse=Intensity(low=0, high=1),
        seed=0,
        patients_known=False,
        cases=entries,
        cropped=["held_back_1", "case_01", "case_05"],
        skipped={"broken": "no mask"},
    )
    write_info(root, info)
    return PreparedSet(root)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_smaller_subsets_lie_within_larger_ones_and_hold_training_cases_only(source):
    order = nested_order(source.info, 0)
    assert sorted(order) == TRAIN
    assert order != TRAIN
    fewer = source.info.model_copy(update={"cases": [one for one in source.info.cases if one.case_id != order[7]]})
    assert nested_order(fewer, 0) == order[:7] + order[8:]


def test_another_seed_chooses_other_cases(source):
    assert nested_order(source.info, 1) != nested_order(source.info, 0)


def test_the_cases_of_a_subset_come_back_as_they_were_in_the_source(source, tmp_path):
    chosen = nested_order(source.info, 0)[:6]
    subset = write_subset(source, tmp_path / "subset", chosen)
    assert subset.info.case_ids("train") == sorted(chosen)
    for case_id in chosen:
        found, expected = subset.read(case_id), source.read(case_id)
        assert np.array_equal(found.image, expected.image)
        assert np.array_equal(found.mask, expected.mask)
        assert (found.box, found.intensity, found.split) == (expected.box, expected.intensity, "train")


def test_no_other_case_is_in_any_file_of_a_subset(source, tmp_path):
    write_subset(source, tmp_path / "subset", ["case_02", "case_03"])
    everything = b"".join(contents(tmp_path / "subset").values())
    assert b"case_02" in everything
    for other in [*OTHERS, *TRAIN[:2], *TRAIN[4:], "broken"]:
        assert other.encode() not in everything
    assert PreparedSet(tmp_path / "subset").info.case_ids() == ["case_02", "case_03"]


def test_what_is_measured_on_the_training_cases_is_measured_anew(source, tmp_path):
    # Cases 01, 02 and 05 are the numbers 3, 4 and 7 of the source.
    subset = write_subset(source, tmp_path / "subset", ["case_05", "case_01", "case_02"])
    assert subset.info.inverse == Intensity(low=40, high=104)
    assert subset.info.shapes("train") == {(5, 8, 6): 1, (6, 8, 6): 1, (9, 8, 6): 1}
    assert subset.info.cropped == ["case_01", "case_05"]


def test_a_subset_says_what_it_was_cut_from_and_keeps_the_name(source, tmp_path):
    subset = write_subset(source, tmp_path / "subset", ["case_02"])
    assert subset.info.cut_from == source.digest
    assert (subset.info.name, subset.info.plane) == ("tiny", (8, 8))
    assert subset.digest != source.digest


def test_a_set_that_was_cut_from_none_does_not_mention_it(source):
    assert "cut_from" not in (source.root / "dataset.yaml").read_text()


def test_the_same_cases_make_the_same_bytes_whatever_the_order_they_are_named_in(source, tmp_path):
    write_subset(source, tmp_path / "a", ["case_02", "case_07"])
    write_subset(source, tmp_path / "b", ["case_07", "case_02"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_interrupted_subset_is_completed_and_a_finished_one_is_left(source, tmp_path):
    write_subset(source, tmp_path / "whole", TRAIN)
    write_subset(source, tmp_path / "broken", TRAIN)
    (tmp_path / "broken" / "dataset.yaml").unlink()
    (tmp_path / "broken" / "cases" / "000001.arrow").unlink()
    assert write_subset(source, tmp_path / "broken", TRAIN).digest == PreparedSet(tmp_path / "whole").digest
    before = (tmp_path / "whole" / "cases" / "000000.arrow").stat().st_mtime_ns
    write_subset(source, tmp_path / "whole", TRAIN)
    assert (tmp_path / "whole" / "cases" / "000000.arrow").stat().st_mtime_ns == before


def test_a_folder_with_another_subset_or_other_files_is_refused(source, tmp_path):
    write_subset(source, tmp_path / "subset", ["case_02"])
    with pytest.raises(DataError, match="another prepared set than the 2 training cases"):
        write_subset(source, tmp_path / "subset", ["case_02", "case_03"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="other files"):
        write_subset(source, tmp_path / "mine", ["case_02"])


@pytest.mark.parametrize(("case_ids", "found"), [(["case_01", "held_back_2"], "the case held_back_2"), ([], "no case")])
def test_only_training_cases_can_be_chosen(source, tmp_path, case_ids, found):
    with pytest.raises(DataError, match=found):
        write_subset(source, tmp_path / "subset", case_ids)
    assert not (tmp_path / "subset").exists()
