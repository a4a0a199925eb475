"""What a run says: kept where MLflow does not answer, bounded, and handed on in its order by whoever comes next."""

import io
import json
import shutil
import time

import pytest
from PIL import Image

from medgen3d.core.errors import RegistryError
from medgen3d.registry.tracking import RunLog, Tracking, start_run
from medgen3d.training import run_journal
from medgen3d.training.run_journal import FOLDER, RunJournal


@pytest.fixture
def tracking(tmp_path, empty_database) -> Tracking:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=tmp_path / "artifacts")


@pytest.fixture
def nobody(monkeypatch) -> RunLog:
    """A server that refuses every connection."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return RunLog("http://127.0.0.1:1", "nobody")


def test_what_a_process_could_not_say_the_next_one_says_in_its_order(tmp_path, tracking, nobody):
    folder, picture = tmp_path / "run", io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    journal, since = RunJournal(folder, nobody), time.monotonic()
    journal.start()
    for step in range(1, 12):
        journal.metrics(step, {"loss": 1 / step})
    journal.image("preview", picture.getvalue(), 11)
    journal.close(patience_s=5)
    assert time.monotonic() - since < 20
    with pytest.raises(RegistryError):
        RunJournal(folder, nobody).drain()
    assert len(list((folder / FOLDER).iterdir())) == 12

    run_id = start_run(tracking, "away", "refiner", {}, {})
    later = RunJournal(folder, RunLog(tracking.uri, run_id))
    later.metrics(12, {"loss": 0.0})
    later.drain()
    history = tracking.client().get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [
        *((step, 1 / step) for step in range(1, 12)),
        (12, 0.0),
    ]
    assert [metric.timestamp for metric in history] == sorted(metric.timestamp for metric in history)
    assert [each.path for each in tracking.client().list_artifacts(run_id)] == ["images"]
    assert not list((folder / FOLDER).iterdir())


def test_a_journal_that_is_full_keeps_what_it_has(tmp_path, nobody, monkeypatch, caplog):
    monkeypatch.setattr(run_journal, "MAX_ITEMS", 3)
    journal = RunJournal(tmp_path, nobody)
    for step in range(5):
        journal.metrics(step, {"loss": step})
    kept = sorted((tmp_path / FOLDER).iterdir())
    assert [json.loads(path.read_text())["step"] for path in kept] == [0, 1, 2]
    assert caplog.text.count("is full") == 1
