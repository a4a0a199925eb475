"""The output folder: what is kept, what is replaced, what is never touched."""

from pathlib import Path

import numpy as np
import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import CASES_PER_PART, CaseEntry, write_info, write_part
from medgen3d.core.errors import DataError
from medgen3d.ingest import output_folder
from medgen3d.ingest.plan import CasePlan, IngestPlan
from medgen3d.ingest.prepare import prepare
from medgen3d.ingest.sources import Pair

NUM_CASES = CASES_PER_PART + 2


@pytest.fixture
def plan(write_pair, dataset_info) -> IngestPlan:
    image, mask = write_pair("any")
    cases = [f"case_{number:02d}" for number in range(NUM_CASES)]
    entries = [
        CaseEntry(case_id=case, patient=case, split="train", shape=(8, 7, 6), sources_sha256={}) for case in cases
    ]
    plans = (
        CasePlan(pair=Pair(case=case, image=image, mask=mask), split="train", intensity=Intensity(low=0, high=200))
        for case in cases
    )
    return IngestPlan(info=dataset_info.model_copy(update={"cases": entries}), cases=tuple(plans))


@pytest.fixture
def other_plan(plan) -> IngestPlan:
    return plan.model_copy(update={"info": plan.info.model_copy(update={"seed": 99})})


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "prepared"


def make_part(out: Path, plan: IngestPlan, part: int) -> Path:
    cases = plan.cases[part * CASES_PER_PART : (part + 1) * CASES_PER_PART]
    write_part(out, part, (prepare(case, plan.info) for case in cases))
    return out / "cases" / f"part-{part:05d}.parquet"


def test_a_new_folder_needs_every_part(out, plan):
    output_folder.refuse_other(out, plan)
    assert output_folder.begin(out, plan) == [0, 1]


def test_an_interrupted_run_goes_on_with_the_parts_that_are_missing(out, plan):
    output_folder.begin(out, plan)
    make_part(out, plan, 0)
    output_folder.refuse_other(out, plan)
    assert output_folder.begin(out, plan) == [1]
    make_part(out, plan, 1)
    assert output_folder.missing_parts(out, plan) == []


def test_a_damaged_part_is_made_again(out, plan):
    output_folder.begin(out, plan)
    make_part(out, plan, 1)
    first = make_part(out, plan, 0)
    first.write_bytes(first.read_bytes()[:-50])
    assert output_folder.begin(out, plan) == [0]


def test_a_different_prepared_set_is_refused(out, plan, other_plan):
    output_folder.begin(out, plan)
    with pytest.raises(DataError, match=r"an unfinished, different prepared set.*--overwrite"):
        output_folder.refuse_other(out, other_plan)
    write_info(out, plan.info)
    with pytest.raises(DataError, match=r"holds a different prepared set.*--overwrite"):
        output_folder.refuse_other(out, other_plan)


def test_overwriting_leaves_nothing_of_the_former_set(out, plan, other_plan):
    output_folder.begin(out, plan)
    make_part(out, plan, 0)
    leftover = make_part(out, plan, 1).with_name("part-00007.parquet")
    leftover.write_bytes(b"of a larger set")
    write_info(out, plan.info)
    assert output_folder.begin(out, other_plan) == [0, 1]
    assert sorted(path.name for path in out.rglob("*")) == ["cases", "plan.sha256"]


def test_a_folder_of_someone_else_is_never_touched(out, plan):
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="is not empty and holds no prepared set"):
        output_folder.refuse_foreign(out)
    with pytest.raises(DataError, match="is a file"):
        output_folder.refuse_foreign(out / "thesis.txt")


def test_a_folder_that_cannot_be_made_is_refused(out, plan):
    out.parent.joinpath("file").write_text("x")
    with pytest.raises(DataError, match="cannot write to"):
        output_folder.begin(out.parent / "file" / "prepared", plan)


def test_the_table_of_contents_is_gone_as_long_as_parts_are_missing(out, plan):
    output_folder.begin(out, plan)
    write_info(out, plan.info)
    output_folder.begin(out, plan)
    assert not (out / "dataset.yaml").exists()


def test_parts_hold_what_the_plan_says(out, plan):
    output_folder.begin(out, plan)
    make_part(out, plan, 1)
    assert output_folder.case_ids_of(plan.info, 1) == ["case_16", "case_17"]
    assert np.array_equal(output_folder.missing_parts(out, plan), [0])
