"""The typed client, and the commands over it, against a real service."""

import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.artifacts import nifti
from medgen3d.client import Client, ClientError, JobFailedError
from medgen3d.core.volume import Volume, affine_from_spacing


@pytest.fixture(scope="module")
def served(make_server, tmp_path_factory):
    with make_server(tmp_path_factory.mktemp("client"), request_burst=1000) as running:
        yield running


@pytest.fixture
def client(served):
    with Client(served.url, served.token) as connected:
        yield connected


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    voxels = np.array([0, 7, 300], np.uint16)[np.arange(4 * 10 * 12).reshape(4, 10, 12) % 3]
    nifti.write(tmp_path / "mask.nii.gz", Volume(voxels=voxels, affine=affine_from_spacing((3.0, 0.5, 0.75))))
    return tmp_path / "mask.nii.gz"


def medgen3d(served, *arguments: object):
    environment = {"MEDGEN3D_TOKEN": served.token, "MEDGEN3D_URL": served.url}
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=environment)


def test_a_job_is_submitted_waited_for_and_fetched(client, tmp_path):
    states = []
    job = client.submit("knee", count=2, seed=4)
    done = client.wait(job["id"], lambda job: states.append(job["state"]), every_s=0.05)
    assert (done["state"], states[-1]) == ("succeeded", "succeeded")
    archive = client.download(job["id"], tmp_path / "pairs.zip")
    assert archive.stat().st_size == done["result_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.zip"]
    one = client.download(job["id"], tmp_path / "one.nii.gz", file="images/syn_00001.nii.gz")
    assert one.read_bytes() == zipfile.ZipFile(archive).read("images/syn_00001.nii.gz")


def test_a_download_goes_on_where_it_was_cut_off(client, tmp_path):
    job = client.submit("knee")
    client.wait(job["id"])
    whole = client.download(job["id"], tmp_path / "whole.zip").read_bytes()
    part = tmp_path / f"again.zip.{job['id'][:8]}.part"
    part.write_bytes(whole[:1000])
    assert client.download(job["id"], tmp_path / "again.zip").read_bytes() == whole
    part.write_bytes(b"\0" * 1000 + whole[1000:2000])  # shows that what is there is not fetched again
    assert client.download(job["id"], tmp_path / "again.zip").read_bytes() == b"\0" * 1000 + whole[1000:]
    part.write_bytes(whole)
    assert client.download(job["id"], tmp_path / "again.zip").read_bytes() == whole


def test_an_image_is_drawn_for_a_mask_and_a_partial_mask_is_completed(client, mask, tmp_path):
    sent = nifti.read(mask).volume.voxels
    for use, known in (("full", None), ("partial", [1])):
        job = client.submit("knee", mask=mask, mask_use=use, known_slices=known)
        client.wait(job["id"], every_s=0.05)
        path = client.download(job["id"], tmp_path / f"{use}.nii.gz", file="labels/syn_00000.nii.gz")
        labels = nifti.read(path).volume.voxels
        np.testing.assert_array_equal(labels[1], sent[1])
        assert np.array_equal(labels, sent) == (use == "full")


def test_the_same_key_is_the_same_job(client):
    first = client.submit("knee", idempotency_key="mine")
    assert client.submit("knee", idempotency_key="mine")["id"] == first["id"]
    with pytest.raises(ClientError, match="used for another request") as refused:
        client.submit("knee", seed=8, idempotency_key="mine")
    assert refused.value.status == 409


def test_a_refusal_is_the_services_own_sentence(client, served, tmp_path):
    with pytest.raises(ClientError, match="no pipeline 'knoe' is offered here; offered are knee") as refused:
        client.submit("knoe")
    assert refused.value.status == 404
    with Client(served.url, "wrong") as stranger, pytest.raises(ClientError, match="no valid token"):
        stranger.pipelines()
    with pytest.raises(ClientError, match="there is no job"):
        client.download("../../etc", tmp_path / "x")
    with pytest.raises(ClientError, match=r"absent\.nii cannot be read"):
        client.submit("knee", mask=tmp_path / "absent.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_fails_or_is_cancelled_is_an_error_that_says_so(client, served, poisoned):
    served.engine.fails.append(poisoned("no luck"))
    with pytest.raises(JobFailedError, match="failed: no luck"):
        client.wait(client.submit("knee")["id"], every_s=0.05)
    served.call(served.engine.hold.clear)
    job = client.submit("knee")
    assert client.cancel(job["id"])["state"] == "cancelled"
    served.call(served.engine.hold.set)
    with pytest.raises(JobFailedError, match="was cancelled"):
        client.wait(job["id"])


def test_pipelines_are_described(client):
    (listed,) = client.pipelines()
    assert listed["name"] == "knee"
    assert client.pipeline("knee")["card"] == "# Knee"
    assert client.jobs(limit=1)[0]["pipeline"] == "knee@3"


class _Moody(BaseHTTPRequestHandler):
    """Refuses twice with 503, then cuts a connection, then is a new proxy of Ray Serve, then answers."""

    asked: list[str | None] = []  # noqa: RUF012 -- one server, one list

    def do_POST(self) -> None:
        self.asked.append(self.headers["Idempotency-Key"])
        self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.asked) <= 2:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif len(self.asked) == 3:
            self.connection.close()
        elif len(self.asked) == 4:
            body = f"Path '{self.path}' not found. Ping http://.../-/routes for available routes.".encode()
            self.send_response(404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            body = json.dumps({"id": "0" * 32}).encode()
            self.send_response(202)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_busy_or_restarting_service_is_asked_again_with_the_same_key():
    server = HTTPServer(("127.0.0.1", 0), _Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "t") as client:
            assert client.submit("knee")["id"] == "0" * 32
    finally:
        server.shutdown()
        server.server_close()
    assert len(_Moody.asked) == 5
    assert len(set(_Moody.asked)) == 1


class _Busy(BaseHTTPRequestHandler):
    """Refuses whatever is asked of it, with a sentence."""

    def do_GET(self) -> None:
        body = json.dumps({"detail": "Too much to do."}).encode()
        self.send_response(503)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_service_that_stays_busy_is_quoted_at_last(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "t") as client:
            for ask in (lambda: client.job("0" * 32), lambda: client.download("0" * 32, tmp_path / "pairs.zip")):
                with pytest.raises(ClientError, match=r"^Too much to do\.$"):
                    ask()
    finally:
        server.shutdown()
        server.server_close()
    assert not list(tmp_path.iterdir())


def test_the_client_needs_nothing_of_the_rest():
    program = (
        "import sys; import medgen3d.client; "
        "print(*sorted(name for name in sys.modules if name.startswith(('medgen3d', 'torch', 'numpy'))))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["medgen3d", "medgen3d.client"]


# Commands


def test_request_submits_waits_and_fetches(served, tmp_path):
    done = medgen3d(served, "request", "--pipeline", "knee", "--count", 2, "--seed", 4, "--out", tmp_path / "p.zip")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"Pairs: {tmp_path / 'p.zip'}\n"
    assert "medgen3d request --url" in done.stderr  # how to go on after an interruption
    assert "refiner: 2 of 2" in done.stderr
    assert len(zipfile.ZipFile(tmp_path / "p.zip").namelist()) == 7


def test_request_takes_a_mask_lists_cancels_and_resumes(served, mask, tmp_path):
    out = tmp_path / "p.zip"
    assert medgen3d(served, "request", "--pipeline", "knee", "--mask", mask, "--out", out).exit_code == 0
    partial = ("--partial", "--known", "0,2", "--spacing", 6, 0.5, 0.75, "--style", 3)
    assert medgen3d(served, "request", "--pipeline", "knee", "--mask", mask, *partial, "--out", out).exit_code == 0
    with Client(served.url, served.token) as client:
        newest = client.jobs()[0]
        assert newest["request"]["known_slices"] == [0, 2]
        assert newest["request"]["spacing_mm"] == [6.0, 0.5, 0.75]
        listed = medgen3d(served, "request", "--list").stdout
        assert newest["id"] in listed
        out.unlink()
        assert medgen3d(served, "request", "--resume", newest["id"], "--out", out).exit_code == 0
        assert out.exists()
        served.call(served.engine.hold.clear)
        job = client.submit("knee")["id"]
        assert medgen3d(served, "request", "--cancel", job).stdout == f"{job}: cancelled\n"
        served.call(served.engine.hold.set)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pipeline", "knoe"), "no pipeline 'knoe' is offered"),
        ((), "--pipeline is missing"),
        (("--pipeline", "knee", "--mask", "absent.nii"), "absent.nii cannot be read"),
        (("--pipeline", "knee", "--known", "a"), "--known: found 'a'"),
        (("--pipeline", "knee", "--url", "http://127.0.0.1:1"), "does not answer"),
        (("--pipeline", "knee", "--url", "ftp://x"), "ftp"),
    ],
)
def test_request_explains_in_one_sentence_what_is_wrong(served, arguments, words):
    result = medgen3d(served, "request", *arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert words in line


def test_request_needs_a_token(served):
    result = CliRunner().invoke(cli.app, ["request", "--list"], env={"MEDGEN3D_TOKEN": ""})
    assert result.exit_code == 2
    assert "MEDGEN3D_TOKEN is unset" in result.stderr


def test_tokens_are_made_listed_and_revoked_for_a_running_service(served):
    where = ("--set", f"serving.folder={served.folder}")
    made = medgen3d(served, "tokens", "create", "carla", "--days", 2, *where)
    token = made.stdout.strip()
    assert token not in made.stderr
    with Client(served.url, token) as client:
        assert client.jobs() == []
        listed = medgen3d(served, "tokens", "list", *where).stdout
        assert token not in listed
        (token_id,) = (line.split()[1] for line in listed.splitlines() if "carla" in line)
        assert medgen3d(served, "tokens", "revoke", token_id, *where).exit_code == 0
        with pytest.raises(ClientError, match="no valid token"):
            client.jobs()
    refused = medgen3d(served, "tokens", "create", "carla", "--scope", "root", *where)
    assert refused.exit_code == 2
    assert "scopes are synthesize, admin" in refused.stderr
    assert os.stat(served.folder / "tokens.json").st_mode & 0o077 == 0  # noqa: PTH116
