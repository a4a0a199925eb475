"""The registry against a real MLflow server on loopback, and from two processes at once."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from PIL import Image

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import ArtifactError, RegistryError
from medgen3d.registry.bundles import register_bundle, resolve_bundle
from medgen3d.registry.pipeline import create_pipeline, list_pipelines, resolve_pipeline
from medgen3d.registry.promotion import promote
from medgen3d.registry.tracking import RunLog, Tracking, start_run
from medgen3d.registry.versions import fetch, find_version, list_versions
from medgen3d.training.run_journal import FOLDER, RunJournal

pytestmark = pytest.mark.timeout(600)  # a server takes 15 s to start on a quiet machine
_START_TIMEOUT_S = 240


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a server that this module starts and ends."""
    with _running(tmp_path_factory.mktemp("server"), _free_port()) as address:
        yield address


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _running(folder: Path, port: int) -> Iterator[str]:
    """A server on the stores of a folder; at the end it is killed."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command + stores, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_answer(f"http://127.0.0.1:{port}", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own group: the server and its worker; nothing of theirs is kept
        process.wait(timeout=60)


def _wait_for_answer(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            urlopen(f"{address}/health", timeout=10).close()
        except (URLError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()}")


@pytest.fixture
def tracking(server, tmp_path) -> Tracking:
    return Tracking(uri=server, artifact_root=tmp_path / "machine a")


def register(tracking: Tracking, root: Path, write_toy_bundle, stage: str, **dataset: object):
    run_id = start_run(tracking, dataset["name"], stage, {}, {})
    return register_bundle(tracking, write_toy_bundle(root, stage, parent_run=run_id, **dataset))


def test_a_run_is_tracked_over_http(tracking):
    run_id = start_run(tracking, "tracked", "refiner", {"stage": "refiner"}, {"refiner": {"window": 8}})
    log = RunLog(tracking.uri, run_id)
    log.metrics(10, {"loss": 0.5, "grad": 2.0})
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    log.image("preview", picture.getvalue(), 10)
    log.finish("FINISHED")
    client = tracking.client()
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"refiner.window": "8"})
    assert run.data.metrics == {"loss": 0.5, "grad": 2.0}
    assert any(file.path.endswith(".png") for file in client.list_artifacts(run_id, "images"))
    with pytest.raises(RegistryError, match=f"MLflow at {tracking.uri} failed: "):
        RunLog(tracking.uri, "nobody").metrics(1, {"loss": 1.0})


def test_bundles_and_pipelines_travel_through_the_server_to_another_machine(tracking, tmp_path, write_toy_bundle):
    for stage in CHAIN:
        register(tracking, tmp_path / "bundle", write_toy_bundle, stage, name="travel")
    created = create_pipeline(tracking, "travel")
    assert created.version.aliases == ("candidate",)
    assert resolve_pipeline(tracking, "travel").notice.startswith("pipeline travel has no champion yet")
    assert promote(tracking, "travel", None, force=True).aliases == ("candidate", "champion")

    elsewhere = Tracking(uri=tracking.uri, artifact_root=tmp_path / "machine b")
    pipeline = resolve_pipeline(elsewhere, "travel@champion")
    assert pipeline.info == created.info
    for stage, root in pipeline.bundles.items():
        assert root.is_relative_to(elsewhere.artifact_root)
        assert read_bundle(root).info.stage == stage
    assert [version.number for version in list_pipelines(elsewhere)["travel"]] == [1]


def test_a_finished_run_that_is_finished_again_makes_no_second_version(tracking, tmp_path, write_toy_bundle):
    version = register(tracking, tmp_path / "bundle", write_toy_bundle, "refiner", name="again")
    assert register_bundle(tracking, tmp_path / "bundle").number == version.number == 1
    assert len(list_versions(tracking, "again.refiner")) == 1


def test_a_version_is_downloaded_once_and_a_changed_copy_is_refused(tracking, tmp_path, write_toy_bundle):
    register(tracking, tmp_path / "bundle", write_toy_bundle, "refiner", name="once")
    version, root = resolve_bundle(tracking, "once", "refiner", "latest")
    before = root.stat().st_ino, (root / "weights.safetensors").stat().st_mtime_ns
    assert fetch(tracking, version) == root
    assert (root.stat().st_ino, (root / "weights.safetensors").stat().st_mtime_ns) == before
    (root / "weights.safetensors").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=f"found SHA-256 .* or delete {root} if that is a downloaded copy"):
        fetch(tracking, version)


def test_unknown_names_are_refused_with_a_list_over_http_too(tracking, tmp_path, write_toy_bundle):
    register(tracking, tmp_path / "bundle", write_toy_bundle, "refiner", name="listed")
    with pytest.raises(RegistryError, match=r"has no nothing\.refiner; it has .*listed\.refiner"):
        find_version(tracking, "nothing.refiner", "latest")
    with pytest.raises(RegistryError, match=r"has the versions 1 and the aliases latest$"):
        find_version(tracking, "listed.refiner", "champion")


@pytest.mark.parametrize("kind", ["server", "sqlite"])
def test_two_processes_that_register_at_once_get_every_version_once(kind, request, tmp_path):
    # With SQLite they also race to make the database, with both the experiment and the registered model.
    uri = request.getfixturevalue("server") if kind == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    tracking = Tracking(uri=uri, artifact_root=tmp_path / "artifacts")
    code = f"""
import pathlib, sys
from medgen3d.registry.tracking import Tracking, start_run
from medgen3d.registry.versions import add_version
tracking = Tracking(uri={uri!r}, artifact_root=pathlib.Path({str(tracking.artifact_root)!r}))
folder = pathlib.Path({str(tmp_path)!r}) / sys.argv[1]
folder.mkdir()
for index in range(5):
    run_id = start_run(tracking, "race", sys.argv[1], {{}}, {{"index": index}})
    (folder / "file.txt").write_text(f"{{sys.argv[1]}} {{index}}")
    add_version(tracking, "race.refiner", folder, run_id, {{}}, decisive=("file.txt",))
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b")]
    assert [worker.wait() for worker in workers] == [0, 0]
    versions = list_versions(tracking, "race.refiner")
    assert [version.number for version in versions] == list(range(1, 11))
    contents = {(fetch(tracking, version) / "file.txt").read_text() for version in versions}
    assert contents == {f"{name} {index}" for name in "ab" for index in range(5)}


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.soak
def test_what_a_run_says_while_the_server_is_away_arrives_in_order_once_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port, folder = _free_port(), tmp_path / "run"
    with _running(tmp_path, port) as address:
        run_log = RunLog(address, start_run(Tracking(uri=address, artifact_root=tmp_path), "away", "refiner", {}, {}))
        journal = RunJournal(folder, run_log)
        journal.start()
        journal.metrics(1, {"loss": 0.5})
        _wait_until(lambda: not list((folder / FOLDER).iterdir()))
    spent = []
    for step in range(2, 30):
        since = time.monotonic()
        journal.metrics(step, {"loss": 1 / step})
        spent.append(time.monotonic() - since)
    journal.image("preview", _png(), 29)
    journal.close(patience_s=1)  # the process ends, and another one takes over
    assert max(spent) < 2
    assert len(list((folder / FOLDER).iterdir())) == 29
    with pytest.raises(RegistryError, match="MLflow at"):
        RunJournal(folder, run_log).drain()

    with _running(tmp_path, port) as address:
        later = RunJournal(folder, run_log)
        later.metrics(30, {"loss": 0.0})
        later.start()
        later.close(patience_s=60)
        client = Tracking(uri=address, artifact_root=tmp_path).client()
        history = client.get_metric_history(run_log.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1, 31))
        assert [metric.value for metric in history] == [0.5, *(1 / step for step in range(2, 30)), 0.0]
        assert [metric.timestamp for metric in history] == sorted(metric.timestamp for metric in history)
        assert [each.path for each in client.list_artifacts(run_log.run_id)] == ["images"]
    assert not list((folder / FOLDER).iterdir())


def _wait_until(is_so, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)
