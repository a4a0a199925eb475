from datetime import UTC, datetime, timedelta

import pytest

from medgen3d.artifacts.run_status import SILENT_S, RunStatus, StageStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError


def status(**changes):
    now = datetime.now(UTC)
    fields = {
        "state": "running",
        "planned": 9,
        "done": 4,
        "failed": 1,
        "rejections": {"volume": 2},
        "stages": {"refiner": StageStatus(num_done=5, busy_s=1.5, processes=2)},
        "started": now,
        "updated": now,
        "seconds": 3.0,
        "cases_per_s": None,
        "eta_s": None,
        "host": "here",
        "pid": 1,
        "resume": "again",
    }
    return RunStatus.model_validate(fields | changes)


def test_a_status_reads_back_as_it_was_written(tmp_path):
    status().write(Folder.of(tmp_path))
    assert RunStatus.read(Folder.of(tmp_path)).model_dump(exclude={"started", "updated"}) == status().model_dump(
        exclude={"started", "updated"}
    )


@pytest.mark.parametrize(
    ("state", "age_s", "is_silent"),
    [("running", SILENT_S + 5, True), ("running", SILENT_S - 5, False), ("finished", SILENT_S + 5, False)],
)
def test_a_run_that_stopped_writing_without_having_ended_is_silent(state, age_s, is_silent):
    assert status(state=state, updated=datetime.now(UTC) - timedelta(seconds=age_s)).is_silent is is_silent


def test_a_stage_is_busy_for_its_processes_share_of_the_runs_time():
    assert status().busy("refiner") == 0.25  # 1.5 s of two processes' 3 s


@pytest.mark.parametrize("content", [None, "{}", "half"])
def test_a_folder_without_a_status_is_told(tmp_path, content):
    if content:
        (tmp_path / "status.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"status\.json: found .* expected the status of a run"):
        RunStatus.read(Folder.of(tmp_path))
