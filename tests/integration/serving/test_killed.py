"""kill -9 of a service in the middle of its work: no accepted job is lost, and results are as if it had lived on."""

import os
import signal
import time

KNEE = {"pipeline": "knee", "count": 2}


def ended(client, job_id: str, within_s: float = 180) -> dict:
    until = time.monotonic() + within_s
    while (job := client.get(f"/v1/jobs/{job_id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.05)
    return job


def test_a_service_that_is_killed_again_and_again_finishes_every_job_with_the_same_result(
    make_server, make_server_process, tmp_path
):
    settings = {"lease_s": 3.0, "max_running": 4, "max_attempts": 50}
    with make_server(tmp_path / "undisturbed", **settings) as calm, calm.client() as client:
        jobs = [client.post("/v1/jobs", json=KNEE | {"seed": seed}).json()["id"] for seed in range(8)]
        expected = [client.get(f"/v1/jobs/{ended(client, job)['id']}/result").content for job in jobs]
    accepted = []
    for life in range(2):
        with make_server_process(tmp_path / "serving", pause_s=0.4, **settings) as server, server.client() as client:
            for seed in range(4 * life, 4 * life + 4):
                answer = client.post("/v1/jobs", json=KNEE | {"seed": seed})
                accepted.append((answer.json()["id"], expected[seed]))
            time.sleep(0.6)  # some are done, some are being drawn, some wait
            os.kill(server.process.pid, signal.SIGKILL)
    with make_server_process(tmp_path / "serving", **settings) as server, server.client() as client:
        for job_id, content in accepted:
            assert ended(client, job_id)["state"] == "succeeded"
            assert client.get(f"/v1/jobs/{job_id}/result").content == content
        assert len(client.get("/v1/jobs").json()) == 8
        folders = list((tmp_path / "serving" / "jobs").iterdir())
        assert len(folders) == 8
        until = time.monotonic() + 30  # a job has ended before its engine's files are removed
        while any(len(list(folder.iterdir())) != 2 for folder in folders):
            assert time.monotonic() < until, "files of attempts that were cut off are left"
            time.sleep(0.05)


def test_what_a_job_left_whose_process_died_just_after_its_end_is_removed_by_the_next_service(make_server, tmp_path):
    with make_server(tmp_path / "serving") as server, server.client() as client:
        job = client.post("/v1/jobs", json=KNEE | {"seed": 1}).json()["id"]
        assert ended(client, job)["state"] == "succeeded"
        content = client.get(f"/v1/jobs/{job}/result").content
    folder = tmp_path / "serving" / "jobs" / job
    (folder / "work").mkdir(exist_ok=True)  # as if it had been killed between the last two things that it does
    (folder / "work" / "mask.npy").write_bytes(b"x")
    (folder / "result-0").mkdir()
    with make_server(tmp_path / "serving") as server, server.client() as client:
        until = time.monotonic() + 30
        while len(list(folder.iterdir())) != 2:
            assert time.monotonic() < until, sorted(path.name for path in folder.iterdir())
            time.sleep(0.05)
        assert client.get(f"/v1/jobs/{job}/result").content == content
