"""The endpoints over a real HTTP server, a real SQLite file and a real client."""

import hashlib
import io
import json
import socket
import stat
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.planned_case import plan_case
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.serving.api.middleware import MAX_JSON_BYTES
from medgen3d.serving.api.problems import MAX_DETAIL
from medgen3d.serving.queue.database import Database, sqlite_url
from medgen3d.serving.queue.job_store import JobStore
from medgen3d.serving.queue.leases import Leases
from medgen3d.serving.security.tokens import create_token, revoke_token

KNEE = {"pipeline": "knee", "seed": 3}


@pytest.fixture(scope="module")
def shared(make_server, tmp_path_factory):
    """A server for tests that change nothing that others see."""
    with make_server(tmp_path_factory.mktemp("shared"), request_burst=10_000) as running:
        yield running


def ended(client: httpx.Client, job_id: str, within_s: float = 90) -> dict:
    until = time.monotonic() + within_s
    while (job := client.get(f"/v1/jobs/{job_id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.05)
    return job


def begun(served, job_id: str) -> None:
    until = time.monotonic() + 60
    while job_id not in served.engine.live:
        assert time.monotonic() < until
        time.sleep(0.01)


def submit(client: httpx.Client, **changes: object) -> str:
    answer = client.post("/v1/jobs", json=KNEE | changes)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def hold(served) -> None:
    served.call(served.engine.hold.clear)


def let_go(served) -> None:
    served.call(served.engine.hold.set)


def mask_file(folder: Path, shape=(4, 10, 12), spacing=(3.0, 0.5, 0.75)) -> bytes:
    """Labels 0, 7 and 300 in turn, in LPS on disk."""
    voxels = np.array([0, 7, 300], np.uint16)[np.arange(np.prod(shape)).reshape(shape) % 3]
    path = folder / "some.nii.gz"
    nifti.write(path, Volume(voxels=voxels, affine=affine_from_spacing(spacing)), "LPS")
    return path.read_bytes()


# Jobs


def test_a_job_gives_the_cases_that_bulk_synthesis_plans_for_its_seed(served, tmp_path):
    with served.client() as client:
        answer = client.post("/v1/jobs", json=KNEE | {"count": 3})
        assert answer.status_code == 202
        job_id = answer.json()["id"]
        assert answer.headers["location"] == f"/v1/jobs/{job_id}"
        job = ended(client, job_id)
        content = client.get(f"/v1/jobs/{job_id}/result").content
    assert (job["state"], job["pipeline"], job["attempts"]) == ("succeeded", "knee@3", 1)
    assert job["result_bytes"] == len(content)
    assert [stage["done"] / stage["total"] for stage in job["progress"]] == [1, 1, 1]
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "set")
    found = SyntheticSet(tmp_path / "set")
    dataset = served.engine.loaded.dataset
    for number, case_id in enumerate(["syn_00000", "syn_00001", "syn_00002"]):
        planned = plan_case(3, number, dataset.shapes)
        image, mask = found.read(case_id)
        assert image.voxels.shape == mask.voxels.shape == planned.shape
        rng = np.random.default_rng(planned.seeds["mask_generator"])  # as NumberEngine draws
        expected = np.array([0, 7, 300])[rng.integers(0, 3, planned.shape)]
        np.testing.assert_array_equal(mask.voxels, expected)
        assert image.voxels.min() >= -100
        assert image.voxels.max() <= 300
    assert found.info.seed == 3
    answered = json.loads((tmp_path / "set" / "request.json").read_text())
    assert (answered["pipeline"], answered["request"]["count"]) == ("knee@3", 3)


def test_the_same_request_gives_the_same_bytes(shared):
    with shared.client() as client:
        ids = [submit(client, count=2) for _ in range(2)]
        contents = [client.get(f"/v1/jobs/{ended(client, job_id)['id']}/result").content for job_id in ids]
    assert contents[0] == contents[1]


def test_depth_spacing_and_style_are_as_asked_for(shared, tmp_path):
    with shared.client() as client:
        job_id = submit(client, depth=4, spacing_mm=[6.0, 0.5, 0.75], count=2, style=8)
        other = submit(client, depth=4, style=9)
        assert ended(client, job_id)["state"] == "succeeded"
        content = client.get(f"/v1/jobs/{job_id}/result").content
        ended(client, other)
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "set")
    found = SyntheticSet(tmp_path / "set")
    image, mask = found.read("syn_00000")
    assert image.voxels.shape[0] == mask.voxels.shape[0] == 2  # 4 slices of 3 mm are 2 of 6 mm
    assert image.spacing_mm == pytest.approx((6.0, 0.5, 0.75))
    assert found.info.spacing_mm == (6.0, 0.5, 0.75)
    assert set(np.unique(mask.voxels)) <= {0, 7, 300}
    with shared.client() as client:
        same_shape = client.get(f"/v1/jobs/{other}/result", params={"file": "images/syn_00000.nii.gz"}).content
        plain = client.get(f"/v1/jobs/{job_id}/result", params={"file": "images/syn_00000.nii.gz"}).content
    assert same_shape != plain


def test_one_file_and_a_range_of_the_result_can_be_fetched(shared):
    with shared.client() as client:
        job_id = submit(client)
        ended(client, job_id)
        whole = client.get(f"/v1/jobs/{job_id}/result")
        part = client.get(f"/v1/jobs/{job_id}/result", headers={"Range": "bytes=100-199"})
        one = client.get(f"/v1/jobs/{job_id}/result", params={"file": "labels/syn_00000.nii.gz"})
        tail = client.get(
            f"/v1/jobs/{job_id}/result",
            params={"file": "labels/syn_00000.nii.gz"},
            headers={"Range": "bytes=10-"},
        )
        beyond = client.get(f"/v1/jobs/{job_id}/result", headers={"Range": f"bytes={len(whole.content)}-"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert one.content == zipfile.ZipFile(io.BytesIO(whole.content)).read("labels/syn_00000.nii.gz")
    assert (tail.status_code, tail.content) == (206, one.content[10:])
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    "name",
    [
        "../../jobs.db",
        "../mask.nii.gz",
        "/etc/passwd",
        "images/../../../tokens.json",
        "images",
        "",
        "images/x.nii.gz\0",
    ],
)
def test_no_name_leads_out_of_the_result(shared, name):
    with shared.client() as client:
        job_id = submit(client)
        ended(client, job_id)
        answer = client.get(f"/v1/jobs/{job_id}/result", params={"file": name})
    assert answer.status_code == 404
    assert set(answer.json()) == {"detail"}


def test_a_job_without_a_result_says_so(served):
    hold(served)
    with served.client() as client:
        job_id = submit(client)
        answer = client.get(f"/v1/jobs/{job_id}/result")
    assert answer.status_code == 409
    assert "has no result" in answer.json()["detail"]


def test_events_follow_a_job_to_its_end(served):
    hold(served)
    with served.client() as client:
        job_id = submit(client)
        begun(served, job_id)
        states = []
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line:
                    assert line.startswith("data: ")
                    states.append(json.loads(line.removeprefix("data: ")))
                    let_go(served)
    assert states[0]["state"] == "running"
    assert states[-1]["state"] == "succeeded"


def test_place_in_the_queue_is_known(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_running=1) as served, served.client() as client:
        hold(served)
        first = submit(client)
        begun(served, first)
        second, third = submit(client), submit(client)
        assert [client.get(f"/v1/jobs/{each}").json()["place"] for each in (first, second, third)] == [None, 0, 1]
        let_go(served)
        ended(client, third)
        assert served.engine.begun == [first, second, third]


def test_no_more_jobs_run_at_a_time_than_are_allowed(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_running=3) as served, served.client() as client:
        ids = [submit(client, seed=number) for number in range(12)]
        assert {ended(client, job_id)["state"] for job_id in ids} == {"succeeded"}
        assert served.engine.most_live <= 3


# Cancelling


def test_a_running_job_that_is_cancelled_frees_the_engine_within_a_second(served):
    hold(served)
    with served.client() as client:
        job_id = submit(client)
        begun(served, job_id)
        at = time.monotonic()
        assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
        while served.engine.live:
            assert time.monotonic() - at < 1.0
            time.sleep(0.005)
        time.sleep(0.3)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert not served.service.files.work(job_id).parent.joinpath("result-1").exists()


def test_a_waiting_job_that_is_cancelled_is_never_begun(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_running=1) as served, served.client() as client:
        hold(served)
        first = submit(client)
        begun(served, first)
        second = submit(client)
        assert client.delete(f"/v1/jobs/{second}").json()["state"] == "cancelled"
        let_go(served)
        ended(client, first)
        time.sleep(0.7)
        assert served.engine.begun == [first]


# Failures


def test_an_attempt_that_fails_is_repeated_and_ends_in_the_same_result(served):
    with served.client() as client:
        undisturbed = client.get(f"/v1/jobs/{ended(client, submit(client))['id']}/result").content
        served.engine.fails.append(RuntimeError("a replica is gone"))
        job = ended(client, submit(client))
        assert (job["state"], job["attempts"], job["error"]) == ("succeeded", 2, "")
        assert client.get(f"/v1/jobs/{job['id']}/result").content == undisturbed


def test_a_failure_that_would_come_again_is_not_repeated(served):
    served.engine.fails.append(OverflowError("a grid of 1e30 voxels"))
    with served.client() as client:
        job = ended(client, submit(client))
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert job["error"] == "OverflowError: a grid of 1e30 voxels"


def test_a_job_keeps_its_lease_while_the_event_loop_is_busy(make_server, tmp_path):
    with make_server(tmp_path / "serving", lease_s=1.0) as served, served.client() as client:
        hold(served)
        job_id = submit(client)
        begun(served, job_id)
        served.call(lambda: time.sleep(3))  # a request that should not, keeps the loop for three leases
        assert Leases(served.service.database, lease_s=1.0, max_attempts=5).claim("another") is None
        let_go(served)
        assert (ended(client, job_id)["state"], client.get(f"/v1/jobs/{job_id}").json()["attempts"]) == ("succeeded", 1)


def test_a_poisoned_job_fails_at_once_with_its_reason(served, poisoned):
    served.engine.fails.append(poisoned("the mask has a hole that nothing fits"))
    with served.client() as client:
        job = ended(client, submit(client))
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert job["error"] == "the mask has a hole that nothing fits"


def test_a_job_that_fails_every_time_ends_with_the_reason_and_no_stack_trace(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_attempts=2) as served, served.client() as client:
        trace = 'Traceback (most recent call last):\n  File "/srv/secret.py", line 1\nValueError: no such device'
        served.engine.fails += [RuntimeError(trace)] * 2
        job = ended(client, submit(client))
    assert job["state"] == "failed"
    assert job["error"] == "ValueError: no such device (attempt 2 of 2)"


def test_jobs_survive_a_restart_and_are_gone_on_with_at_once(make_server, tmp_path):
    with make_server(tmp_path / "serving", lease_s=60) as served, served.client() as client:
        hold(served)
        ids = [submit(client, seed=number) for number in range(6)]  # four of them run
        begun(served, ids[3])
    left = Database(sqlite_url(tmp_path / "serving" / "jobs.db"))
    assert JobStore(left, max_queued=1, jobs_per_owner=1).counts() == {"queued": 6}
    with make_server(tmp_path / "serving", lease_s=60) as served, served.client() as client:
        at = time.monotonic()
        for job_id in ids:
            assert ended(client, job_id)["state"] == "succeeded"
        assert time.monotonic() - at < 30  # given back, so no lease has to run out


def test_a_result_is_kept_for_its_time_and_then_removed(make_server, tmp_path):
    with make_server(tmp_path / "serving") as served, served.client() as client:
        job_id = submit(client)
        ended(client, job_id)
        assert served.service.files.folder(job_id).is_dir()
    with make_server(tmp_path / "serving", keep_results_h=1e-6) as served, served.client() as client:
        until = time.monotonic() + 60
        while client.get(f"/v1/jobs/{job_id}").status_code != 404:
            assert time.monotonic() < until
            time.sleep(0.05)
        while served.service.files.folder(job_id).exists():
            assert time.monotonic() < until


# Idempotency


def test_a_key_never_makes_a_second_job(served):
    def ask(_: int) -> str:
        with served.client() as client:
            answer = client.post("/v1/jobs", json=KNEE, headers={"Idempotency-Key": "study-7"})
            assert answer.status_code == 202
            return answer.json()["id"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(24)))) == 1
    with served.client() as client:
        assert len(client.get("/v1/jobs").json()) == 1
        refused = client.post("/v1/jobs", json=KNEE | {"seed": 4}, headers={"Idempotency-Key": "study-7"})
    assert refused.status_code == 409
    assert "used for another request" in refused.json()["detail"]
    assert [path.name for path in served.service.files.root.joinpath("incoming").iterdir()] == []


def test_a_key_stands_for_the_mask_too(served, tmp_path):
    one, other = mask_file(tmp_path), mask_file(tmp_path, shape=(5, 10, 12))
    with served.client() as client:

        def ask(mask: bytes) -> httpx.Response:
            files = {"request": (None, json.dumps(KNEE | {"mask_use": "full"})), "mask": ("m", mask)}
            return client.post("/v1/jobs", files=files, headers={"Idempotency-Key": "k"})

        first, again, differs = ask(one), ask(one), ask(other)
    assert first.json()["id"] == again.json()["id"]
    assert differs.status_code == 409


# Masks of one's own


def test_an_image_for_a_mask_lies_on_the_masks_own_grid(shared, tmp_path):
    sent = mask_file(tmp_path)
    with shared.client() as client:
        answer = client.post("/v1/images", params={"pipeline": "knee", "seed": 5}, content=sent)
    assert answer.status_code == 200
    (tmp_path / "image.nii.gz").write_bytes(answer.content)
    (tmp_path / "mask.nii.gz").write_bytes(sent)
    image, mask = nib.load(tmp_path / "image.nii.gz"), nib.load(tmp_path / "mask.nii.gz")
    assert image.shape == mask.shape == (12, 10, 4)
    np.testing.assert_allclose(image.affine, mask.affine, atol=1e-4)


def test_a_whole_mask_is_not_changed_and_known_slices_of_a_partial_one_are_kept(shared, tmp_path):
    sent = mask_file(tmp_path)
    (tmp_path / "sent.nii.gz").write_bytes(sent)
    expected = nifti.read(tmp_path / "sent.nii.gz").volume.voxels
    with shared.client() as client:

        def labels(**request: object) -> np.ndarray:
            files = {"request": (None, json.dumps(KNEE | request)), "mask": ("../../evil.nii.gz", sent)}
            answer = client.post("/v1/jobs", files=files)
            assert answer.status_code == 202, answer.text
            job_id = ended(client, answer.json()["id"])["id"]
            content = client.get(f"/v1/jobs/{job_id}/result", params={"file": "labels/syn_00001.nii.gz"}).content
            (tmp_path / "labels.nii.gz").write_bytes(content)
            return nifti.read(tmp_path / "labels.nii.gz").volume.voxels

        np.testing.assert_array_equal(labels(count=2, mask_use="full"), expected)
        partial = labels(count=2, mask_use="partial", known_slices=[0, 3])
    np.testing.assert_array_equal(partial[[0, 3]], expected[[0, 3]])
    assert (partial[[1, 2]] != expected[[1, 2]]).any()


# Waiting requests


def test_a_few_pairs_can_be_waited_for(served):
    with served.client() as client:
        answer = client.post("/v1/pairs", json=KNEE | {"count": 2})
        assert answer.headers["content-type"] == "application/zip"
        assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 7
        assert client.post("/v1/pairs", json=KNEE | {"count": 9}).status_code == 422


def test_after_the_deadline_the_job_goes_on(served):
    hold(served)
    with served.client() as client:
        late = client.post("/v1/pairs", json=KNEE | {"deadline_s": 0.3})
        assert late.status_code == 504
        job_id = late.json()["job"]
        assert late.headers["location"] == f"/v1/jobs/{job_id}"
        let_go(served)
        assert ended(client, job_id)["state"] == "succeeded"


# Limits


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 501}, "count: found 501, expected at most 500"),
        ({"depth": 10}, "depth: found 10 slices, expected at most 9"),
        ({"spacing_mm": [0.01, 0.01, 0.01]}, "voxels, expected at most"),
        ({"spacing_mm": [1e-300, 1.0, 1.0]}, "spacing_mm.0: found 1e-300"),
        ({"spacing_mm": [1e308, 1.0, 1.0]}, "spacing_mm.0: found 1e+308"),
        ({"mask_use": "full"}, "found mask_use without a mask"),
        ({"known_slices": [1]}, "known_slices without a partial mask"),
        ({"count": 0}, "count: found 0"),
        ({"seed": -1}, "seed: found -1"),
        ({"surprise": 1}, "surprise"),
        ({"pipeline": "x" * 201}, "pipeline"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(shared, changes, words):
    with shared.client() as client:
        answer = client.post("/v1/jobs", json=KNEE | changes)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/pairs"])
@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e400"])
def test_what_is_no_number_is_refused_before_anything_is_accepted(shared, path, number):
    body = f'{{"pipeline": "knee", "spacing_mm": [1, {number}, 1]}}'
    with shared.client() as client:
        before = len(client.get("/v1/jobs", params={"limit": 1000}).json())
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, set(answer.json())) == (422, {"detail"})
        assert len(client.get("/v1/jobs", params={"limit": 1000}).json()) == before


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json;charset=utf-8", "text/json", ""]
)
def test_the_limit_of_a_body_does_not_depend_on_how_a_header_is_spelled(shared, kind):
    with shared.client() as client:
        answer = client.post("/v1/jobs", content=b" " * (MAX_JSON_BYTES + 1), headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert f"at most {MAX_JSON_BYTES} bytes" in answer.json()["detail"]


def test_a_refusal_repeats_little_of_what_was_sent(shared):
    with shared.client() as client:
        for changes in ({"x" * 50_000: 1}, {"pipeline": "y" * 50_000}, {"count": "z" * 50_000}):
            detail = client.post("/v1/jobs", json=KNEE | changes).json()["detail"]
            assert 20 < len(detail) <= MAX_DETAIL


def test_an_unknown_pipeline_is_not_found(shared):
    with shared.client() as client:
        answer = client.post("/v1/jobs", json={"pipeline": "knoe"})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "no pipeline 'knoe' is offered here; offered are knee"


def test_a_full_queue_says_when_to_come_back_and_loses_nothing(make_server, tmp_path):
    settings = {"max_queued": 4, "max_running": 2, "jobs_per_owner": 1000, "request_burst": 1000}
    with make_server(tmp_path / "serving", **settings) as served:
        hold(served)
        answers = []

        def ask(number: int) -> None:
            with served.client() as client:
                answers.append(client.post("/v1/jobs", json=KNEE | {"seed": number}))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(60)))
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code != 202]
        assert 4 <= len(accepted) <= 6
        assert {answer.status_code for answer in refused} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        let_go(served)
        with served.client() as client:
            assert {ended(client, job_id)["state"] for job_id in accepted} == {"succeeded"}
            assert client.post("/v1/jobs", json=KNEE).status_code == 202


def test_an_owner_who_asks_too_often_or_has_too_many_jobs_is_told_to_wait(make_server, tmp_path):
    with make_server(tmp_path / "serving", request_burst=3, requests_per_minute=6) as served, served.client() as client:
        answers = [client.post("/v1/jobs", json=KNEE) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        assert client.get("/v1/jobs").status_code == 200  # looking is free
    with make_server(tmp_path / "other", jobs_per_owner=2) as served, served.client() as client:
        hold(served)
        answers = [client.post("/v1/jobs", json=KNEE) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert "unfinished jobs" in answers[-1].json()["detail"]


def test_a_body_that_is_too_large_is_refused_whether_its_size_is_declared_or_not(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_upload_bytes=100_000) as served, served.client() as client:
        declared = client.post("/v1/images", params={"pipeline": "knee"}, content=b"x" * 300_000)
        chunked = client.post("/v1/images", params={"pipeline": "knee"}, content=iter([b"x" * 10_000] * 30))
        text = client.post("/v1/jobs", content=b" " * 2_000_000, headers={"Content-Type": "application/json"})
    assert [declared.status_code, chunked.status_code, text.status_code] == [413, 413, 413]
    assert "expected at most" in chunked.json()["detail"]


def test_a_body_that_never_ends_is_not_waited_for(make_server, tmp_path, monkeypatch):
    monkeypatch.setattr("medgen3d.serving.api.middleware.BODY_WITHIN_S", 0.4)
    with make_server(tmp_path / "serving") as served:
        host, port = served.url.removeprefix("http://").split(":")
        for path, kind in (("/v1/pairs", "application/json"), ("/v1/images?pipeline=knee", "application/gzip")):
            with socket.create_connection((host, int(port)), timeout=10) as slow:
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.token}\r\n"
                slow.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: 100\r\n\r\n{{".encode())
                assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_too_many_open_streams_are_refused(make_server, tmp_path):
    with make_server(tmp_path / "serving", max_streams=1) as served, served.client() as client:
        hold(served)
        job_id = submit(client)
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            with served.client() as other:
                refused = other.get(f"/v1/jobs/{job_id}/events")
                waits = other.post("/v1/pairs", json=KNEE)
                assert len(other.get("/v1/jobs").json()) == 1  # nothing was accepted
        assert [refused.status_code, waits.status_code] == [503, 503]
        assert refused.headers["retry-after"] == "5"


# Security


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/pipelines", "/metrics", "/openapi.json", "/v1/jobs/" + "0" * 32, "/anything"]
)
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer \xe9"])
def test_nothing_but_health_is_open_without_a_token(shared, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    with shared.client(None) as client:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready"}


def test_a_body_of_a_stranger_is_not_read(shared):
    with shared.client(None) as client:
        assert client.post("/v1/jobs", content=b"not even JSON").status_code == 401


def test_jobs_of_another_owner_do_not_exist(served):
    other, _ = create_token(served.service.tokens.path, "ben")
    with served.client() as anna, served.client(other) as ben:
        job_id = submit(anna)
        ended(anna, job_id)
        for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", "")):
            answer = ben.request(method, f"/v1/jobs/{job_id}{path}")
            assert answer.status_code == 404
            assert answer.json() == {"detail": f"there is no job {job_id!r}; see GET /v1/jobs"}
        assert ben.get("/v1/jobs").json() == []


def test_scopes_are_kept_apart(served):
    path = served.service.tokens.path
    admin, _ = create_token(path, "root", ("admin",))
    with served.client() as anna, served.client(admin) as root:
        job_id = submit(anna)
        assert anna.get("/metrics").status_code == 403
        text = root.get("/metrics").text
        assert root.get(f"/v1/jobs/{job_id}").json()["id"] == job_id
        assert len(root.get("/v1/jobs").json()) == 1
    assert 'medgen3d_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0' in text
    assert "medgen3d_jobs{state=" in text


def test_tokens_are_rotated_without_a_restart(served):
    path = served.service.tokens.path
    new, _ = create_token(path, "anna")
    with served.client() as old_client, served.client(new) as new_client:
        job_id = submit(old_client)
        assert new_client.get(f"/v1/jobs/{job_id}").status_code == 200  # the same owner
        digest = hashlib.sha256(served.token.encode()).hexdigest()
        (old_id,) = (each["id"] for each in json.loads(path.read_text())["tokens"] if each["sha256"] == digest)
        revoke_token(path, old_id)
        assert old_client.get("/v1/jobs").status_code == 401
        assert new_client.get("/v1/jobs").status_code == 200


def test_the_audit_log_says_who_asked_for_what_and_never_a_token(served):
    with served.client() as client:
        job_id = submit(client)
        client.get("/v1/jobs/" + "f" * 32)
    with served.client("wrong-token") as stranger:
        stranger.get("/v1/jobs?token=secret-in-a-query")
    text = (served.folder / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line.get("owner"), line["method"], line["status"]) for line in lines] == [
        ("anna", "POST", 202),
        ("anna", "GET", 404),
        (None, "GET", 401),
    ]
    assert (lines[0]["job"], lines[0]["pipeline"]) == (job_id, "knee@3")
    for secret in (served.token, "wrong-token", "secret-in-a-query"):
        assert secret not in text


def test_nobody_else_can_read_what_the_service_keeps(make_server, tmp_path, caplog):
    folder = tmp_path / "serving"
    folder.mkdir(mode=0o755)
    with make_server(folder) as served, served.client() as client:
        ended(client, submit(client))
    assert "could be read by others (mode 755)" in caplog.text
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir()) if path.is_file()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"jobs.db", "tokens.json", "audit.jsonl"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_the_first_token_makes_a_folder_that_is_its_owners_alone(tmp_path):
    create_token(tmp_path / "serving" / "tokens.json", "anna")
    assert stat.S_IMODE((tmp_path / "serving").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("asked", "status", "content_range"),
    [("bytes=999999999-", 416, True), ("bytes=-0", 416, True), ("bytes=2-1", 400, False), ("lines=1-2", 400, False)],
)
def test_a_range_that_is_not_there_is_a_problem_like_any_other(shared, asked, status, content_range):
    with shared.client() as client:
        path = f"/v1/jobs/{ended(client, submit(client))['id']}/result"
        answer = client.get(path, headers={"Range": asked})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"detail"}
    assert ("content-range" in answer.headers) == (answer.status_code == 416)


def test_the_size_of_a_result_can_be_asked_for_alone(shared):
    with shared.client() as client:
        path = f"/v1/jobs/{ended(client, submit(client))['id']}/result"
        whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]


def test_an_error_in_the_service_is_a_sentence_and_no_stack_trace(served, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(served.engine, "find", broken)
    with served.client() as client:
        answer = client.post("/v1/jobs", json=KNEE)
    assert answer.status_code == 500
    assert set(answer.json()) == {"detail"}
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert json.loads((served.folder / "audit.jsonl").read_text().splitlines()[-1])["status"] == 500


def test_a_service_whose_database_or_engine_is_away_is_not_ready(served, monkeypatch):
    async def away() -> None:
        raise ConnectionError("db.internal:5432")

    monkeypatch.setattr(served.engine, "pipelines", away)
    with served.client(None) as client:
        answer = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    assert answer.status_code == 503
    assert "internal" not in answer.text


# What is offered


def test_pipelines_are_listed_with_labels_limits_and_card(shared):
    with shared.client() as client:
        (listed,) = client.get("/v1/pipelines").json()
        shown = client.get("/v1/pipelines/knee@champion").json()
        assert client.get("/v1/pipelines/knoe").status_code == 404
    assert listed["labels"] == {"0": "background", "7": "bone", "300": "cartilage"}
    assert listed["limits"] == {"max_count": 500, "max_depth": 9, "plane": [16, 24], "max_voxels": 2**27}
    assert shown == listed | {"card": "# Knee"}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_processes_of_a_service_share_its_jobs(database, make_server, tmp_path, request):
    url = None if database == "sqlite" else request.getfixturevalue("postgres")()
    folder, settings = tmp_path / "serving", {"database_url": url, "max_running": 2}
    with make_server(folder, **settings) as one, make_server(folder, **settings) as other:
        with one.client() as first, other.client(one.token) as second:
            ids = [submit(first, seed=seed) for seed in range(10)]
            assert {ended(second, job_id)["state"] for job_id in ids} == {"succeeded"}
            contents = [second.get(f"/v1/jobs/{job_id}/result").content for job_id in ids]
            assert contents == [first.get(f"/v1/jobs/{job_id}/result").content for job_id in ids]
            again = [
                client.post("/v1/pairs", json=KNEE, headers={"Idempotency-Key": "k"}) for client in (first, second)
            ]
            assert again[0].content == again[1].content == contents[3]  # of seed 3
            assert len(first.get("/v1/jobs").json()) == 11
            hold(one)
            hold(other)
            job_id = submit(first)
            until = time.monotonic() + 60
            while job_id not in one.engine.live + other.engine.live:
                assert time.monotonic() < until
                time.sleep(0.01)
            second.delete(f"/v1/jobs/{job_id}")
            at = time.monotonic()
            while one.engine.live or other.engine.live:
                assert time.monotonic() - at < 1.0
                time.sleep(0.005)
        assert len(one.engine.begun + other.engine.begun) == 12


def test_a_job_of_a_runner_that_died_is_run_by_another(make_server, tmp_path):
    with make_server(tmp_path / "serving", lease_s=0.9) as served, served.client() as client:
        job_id = submit(client)
        ended(client, job_id)
        dead = Leases(served.service.database, lease_s=0.9, max_attempts=5)
        hold(served)
        busy = [submit(client, seed=number) for number in range(4)]  # the runner has no room left
        begun(served, busy[3])
        orphan = submit(client, seed=9)
        assert dead.claim("dead").id == orphan
        let_go(served)
        job = ended(client, orphan)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
