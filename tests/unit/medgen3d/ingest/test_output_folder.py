"""The output folder: what is kept, what is replaced, what is never touched."""

from pathlib import Path

import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import CaseEntry, case_path, write_info, write_prepared_case
from medgen3d.core.errors import DataError
from medgen3d.ingest import output_folder
from medgen3d.ingest.plan import CasePlan, IngestPlan
from medgen3d.ingest.prepare import prepare
from medgen3d.ingest.sources import Pair

NUM_CASES = 3


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


def make_case(out: Path, plan: IngestPlan, number: int) -> Path:
    write_prepared_case(out, number, prepare(plan.cases[number], plan.info))
    return case_path(out, number)


def test_a_new_folder_needs_every_case(out, plan):
    output_folder.refuse_other(out, plan)
    assert output_folder.begin(out, plan) == [0, 1, 2]


def test_an_interrupted_run_goes_on_with_the_cases_that_are_missing(out, plan):
    output_folder.begin(out, plan)
    make_case(out, plan, 0)
    output_folder.refuse_other(out, plan)
    assert output_folder.begin(out, plan) == [1, 2]
    make_case(out, plan, 1)
    make_case(out, plan, 2)
    assert output_folder.missing_cases(out, plan) == []


def test_a_damaged_case_is_made_again(out, plan):
    output_folder.begin(out, plan)
    make_case(out, plan, 1)
    make_case(out, plan, 2)
    first = make_case(out, plan, 0)
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
    make_case(out, plan, 0)
    leftover = make_case(out, plan, 1).with_name("000007.arrow")
    leftover.write_bytes(b"of a larger set")
    write_info(out, plan.info)
    assert output_folder.begin(out, other_plan) == [0, 1, 2]
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


def test_the_table_of_contents_is_gone_as_long_as_cases_are_missing(out, plan):
    output_folder.begin(out, plan)
    write_info(out, plan.info)
    output_folder.begin(out, plan)
    assert not (out / "dataset.yaml").exists()
