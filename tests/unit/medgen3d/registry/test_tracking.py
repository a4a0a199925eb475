import io
import math
import pickle
import socket
import subprocess
import sys

import pytest
from PIL import Image

from medgen3d.config.experiment import StorageConfig
from medgen3d.core.errors import ConfigError, RegistryError
from medgen3d.registry.tracking import RunLog, Tracking, start_run


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 4), grey).save(file, "PNG")
    return file.getvalue()


def test_runs_go_to_sqlite_below_the_storage_root_when_nothing_else_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking.of(StorageConfig(root=tmp_path))
    assert tracking == Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=tmp_path / "artifacts")


def test_the_environment_names_a_server_only_if_the_configuration_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment:5000")
    assert Tracking.of(StorageConfig(root=tmp_path)).uri == "http://from-environment:5000"
    assert (
        Tracking.of(StorageConfig(root=tmp_path, tracking_uri="http://configured:5000")).uri == "http://configured:5000"
    )


@pytest.mark.parametrize("uri", ["http://ann:secret@mlflow:5000", "https://secret@mlflow"])
def test_credentials_in_the_address_are_refused_and_not_repeated(tmp_path, uri):
    with pytest.raises(ConfigError, match="the tracking URI of mlflow holds credentials") as caught:
        Tracking(uri=uri, artifact_root=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "postgresql://secret:secret@db/mlflow", "mlruns"])
def test_other_stores_are_refused(tmp_path, uri):
    with pytest.raises(ConfigError, match="begins with sqlite:///, http:// or https://") as caught:
        Tracking(uri=uri, artifact_root=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "sqlite://"])
def test_a_database_that_depends_on_the_working_folder_is_refused(tmp_path, uri):
    with pytest.raises(ConfigError, match=f"the tracking URI {uri} would mean another file in every process"):
        Tracking(uri=uri, artifact_root=tmp_path)


def test_a_run_holds_its_name_tags_parent_and_flattened_params(tracking):
    parent = start_run(tracking, "toy", "all", tags={}, params={})
    nested = {"seed": 3, "refiner": {"channels": [8, 16], "deep": {"start": 0.35}}}
    run = tracking.client().get_run(start_run(tracking, "toy", "refiner", {"dataset_digest": "d"}, nested, parent))
    assert run.info.run_name == "refiner"
    assert run.data.tags["dataset_digest"] == "d"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.params == {"seed": "3", "refiner.channels": "[8, 16]", "refiner.deep.start": "0.35"}


def test_more_params_than_mlflow_takes_in_one_call_are_all_kept(tracking):
    params = {f"p{index}": index for index in range(250)}
    run = tracking.client().get_run(start_run(tracking, "toy", "many", {}, params))
    assert run.data.params == {name: str(value) for name, value in params.items()}


def test_artifacts_of_sqlite_runs_lie_below_the_artifact_root_wherever_the_process_runs(
    tracking, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    run_id = start_run(tracking, "toy", "x", {}, {})
    RunLog(tracking.uri, run_id).artifact(tmp_path / "notes.txt")
    (kept,) = tracking.artifact_root.rglob("notes.txt")
    assert kept.read_text() == "kept"
    assert not (tmp_path / "mlruns").exists()


def test_metrics_are_logged_per_step_and_keep_nan(tracking):
    run_id = start_run(tracking, "toy", "x", {}, {})
    log = RunLog(tracking.uri, run_id)
    log.metrics(10, {"loss": 2.0, "rate": 7})
    log.metrics(20, {"loss": math.nan})
    history = tracking.client().get_metric_history(run_id, "loss")
    assert [metric.step for metric in history] == [10, 20]
    assert history[0].value == 2.0
    assert math.isnan(history[1].value)
    assert tracking.client().get_run(run_id).data.metrics["rate"] == 7


def test_pictures_keep_their_pixels_and_steps(tracking):
    run_id = start_run(tracking, "toy", "x", {}, {})
    for step, grey in ((5, 50), (6, 60)):
        RunLog(tracking.uri, run_id).image("preview", png(grey), step)
    files = sorted(tracking.artifact_root.rglob("preview*.png"))
    assert [f"step+{step}" in path.name for step, path in zip((5, 6), files, strict=True)] == [True, True]
    assert [Image.open(path).getpixel((0, 0)) for path in files] == [50, 60]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_finished_run_says_how_it_ended_until_it_goes_on(tracking, status):
    run_id = start_run(tracking, "toy", "x", {}, {})
    assert tracking.client().get_run(run_id).info.status == "RUNNING"
    RunLog(tracking.uri, run_id).finish(status)
    assert tracking.client().get_run(run_id).info.status == status
    RunLog(tracking.uri, run_id).reopen()
    assert tracking.client().get_run(run_id).info.status == "RUNNING"


def test_another_process_writes_to_the_same_run_and_starts_none_of_its_own(tracking):
    run_id = start_run(tracking, "toy", "x", {}, {})
    log = pickle.dumps(RunLog(tracking.uri, run_id)).hex()
    worker = f"import pickle; log = pickle.loads(bytes.fromhex('{log}')); log.metrics(1, {{'loss': 1.5}})"
    subprocess.run([sys.executable, "-c", worker], check=True)
    RunLog(tracking.uri, run_id).metrics(2, {"loss": 0.5})
    client = tracking.client()
    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [1.5, 0.5]
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert [run.info.run_id for run in client.search_runs(experiments)] == [run_id]


def test_what_mlflow_refuses_is_one_sentence_that_survives_pickling(tracking):
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:.* failed: Run with id=nobody not found") as caught:
        RunLog(tracking.uri, "nobody").metrics(1, {"loss": 1.0})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_database_folder_is_made_when_it_is_missing(empty_database):
    assert empty_database.is_file()


def test_a_server_that_does_not_answer_is_reported_at_once(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RegistryError, match=f"no MLflow server answers at {uri} .*refused.*; start it, or"):
            start_run(Tracking(uri=uri, artifact_root=tmp_path), "toy", "x", {}, {})


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database")
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=tmp_path)
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:.* failed: .*file is not a database$"):
        start_run(tracking, "toy", "x", {}, {})
