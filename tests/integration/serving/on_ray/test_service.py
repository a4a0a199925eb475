"""The service on a real Ray Serve: no accepted job is lost, whatever dies, and its pairs are those of its seed."""

import time

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(1500)  # two minutes of two cores, but never a failure of a busy machine
STAGES = ("mask_generator", "image_sequence_generator", "refiner")
SERVE = ("ingress", "controller", "proxy")


def test_jobs_that_a_stopped_service_left_end_in_the_next_one_as_if_undisturbed(service):
    assert "unfinished jobs are kept in" in service.said
    for seed, job in service.left.items():
        assert service.client.wait(job)["state"] == "succeeded"
        assert service.client.volumes(job) == service.expected[seed]
        assert len(service.client.results(job)) == 1


def test_jobs_end_once_and_as_if_undisturbed_when_every_kind_of_process_is_killed(service):
    client = service.client
    jobs = {seed: client.submit(seed=seed, count=service.count, key=f"job-{seed}") for seed in service.expected}
    for victims in (STAGES, SERVE):
        while not any(client.status(job)["state"] == "running" for job in jobs.values()):
            time.sleep(0.05)
        service.cluster.kill(*victims)
    for seed, job in jobs.items():
        ended = client.wait(job)
        assert ended["state"] == "succeeded", ended
        assert ended["attempts"] > 1
        assert client.volumes(job) == service.expected[seed]
        assert len(client.results(job)) == 1
        assert client.submit(seed=seed, count=service.count, key=f"job-{seed}") == job


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victims", [*((kind,) for kind in (*STAGES, *SERVE)), (*STAGES, *SERVE)], ids="-".join)
def test_20_jobs_end_once_and_as_if_undisturbed_whatever_is_killed(service, victims):
    client, seeds = service.client, [seed for _ in range(10) for seed in service.expected]
    for job in service.left.values():  # an owner may have no more than these twenty
        client.wait(job)
    jobs = [client.submit(seed=seed, count=service.count) for seed in seeds]
    for _ in range(2):
        while not any(client.status(job)["state"] == "running" for job in jobs):
            time.sleep(0.05)
        while not all(map(service.cluster.pids, victims)):  # those that were killed before are being replaced
            time.sleep(0.05)
        service.cluster.kill(*victims)
        time.sleep(3)
    for seed, job in zip(seeds, jobs, strict=True):
        assert client.wait(job, within_s=600)["state"] == "succeeded"
        assert client.volumes(job) == service.expected[seed]
        assert len(client.results(job)) == 1


def test_a_cancelled_job_frees_the_devices_within_a_second_of_their_time(service):
    client, cluster = service.client, service.cluster

    def used_in(seconds: int) -> list[float]:
        """CPU time of the stages in each of the next seconds."""
        spent = [cluster.cpu_seconds(*STAGES)]
        for _ in range(seconds):
            time.sleep(1)
            spent.append(cluster.cpu_seconds(*STAGES))
        return np.diff(spent).tolist()

    long = client.submit(seed=1, count=300)
    while not any(stage["done"] for stage in client.status(long)["progress"]):
        time.sleep(0.05)
    busy = np.mean(used_in(4))
    assert client.ask("DELETE", f"/v1/jobs/{long}").json()["state"] == "cancelled"
    afterwards = used_in(8)
    waiting = np.median(afterwards)  # processes that wait take some time as well
    assert waiting < busy / 4
    assert sum(max(0, spent - waiting) for spent in afterwards) < 1 + busy  # of a busy second that had begun
    assert client.wait(client.submit(seed=2))["state"] == "succeeded"


def test_a_promoted_champion_is_taken_over_with_no_failed_request(service, registry):
    client, seen, jobs = service.client, [], []
    registry.promote(2)
    end = time.monotonic() + 30
    while "knee@2" not in seen[-5:] and time.monotonic() < end:
        jobs.append(client.submit(seed=4))
        seen.append(client.status(jobs[-1])["pipeline"])
        client.wait(jobs[max(len(jobs) - 8, 0)])  # eight under way
    assert set(seen) == {"knee@1", "knee@2"}
    assert seen == sorted(seen)
    ended = [client.wait(job) for job in jobs]
    assert {job["state"] for job in ended} == {"succeeded"}
    assert {job["attempts"] for job in ended} == {1}
    assert client.volumes(jobs[0]) != client.volumes(jobs[-1])


def test_a_champion_that_cannot_be_loaded_is_not_taken_over(service, registry):
    client = service.client
    before = client.wait(client.submit(seed=4))
    registry.promote(3)
    time.sleep(2)  # the registry is asked twice a second
    after = client.wait(client.submit(seed=4))
    assert before["state"] == after["state"] == "succeeded"
    assert before["pipeline"] == after["pipeline"] != "knee@3"


def test_prometheus_sees_how_well_batches_are_filled(service):
    def figures() -> dict[str, float]:
        lines = httpx.get(service.cluster.metrics).text.splitlines()
        found = [line for line in lines if line.startswith("ray_medgen3d_serving_") and 'deployment="refiner"' in line]
        return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in found}

    service.client.wait(service.client.submit(seed=5))
    end = time.monotonic() + 60  # processes tell Ray their figures every ten seconds
    while not figures() and time.monotonic() < end:
        time.sleep(1)
    found = figures()
    assert found["ray_medgen3d_serving_rows_total"] == found["ray_medgen3d_serving_steps_total"] > 0  # a volume a step


def test_a_pipeline_that_is_not_offered_is_refused(service):
    answer = service.client.ask("POST", "/v1/jobs", json={"pipeline": "builtin/hippocampus"})
    assert answer.status_code == 404
    assert "knee@champion" in answer.json()["detail"]


def test_200_clients_at_once_are_served_or_told_when_to_come_again(service):
    answers, rss_before = service.client.all_at_once(200), service.cluster.memory_mib("ingress")
    assert {answer.status_code for answer in answers} == {202, 429, 503}
    for answer in answers:
        if answer.status_code != 202:
            assert 0 < int(answer.headers["Retry-After"]) <= 3600
            assert answer.json()["detail"].count(".") >= 1
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert len(accepted) == len(set(accepted)) >= service.max_queued
    assert {service.client.wait(job)["state"] for job in accepted} == {"succeeded"}
    assert service.cluster.memory_mib("ingress") < rss_before + 300
