"""An accepted job is never lost: every kind of process is killed while jobs are under way."""

import time

import pytest

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]
KINDS = ("mask_generator", "image_sequence_generator", "refiner", "ingress", "controller", "proxy")


@pytest.fixture(scope="module")
def service(serve_knee, tmp_path_factory):
    with serve_knee(tmp_path_factory.mktemp("serving"), max_attempts=12) as running:
        yield running


def test_jobs_end_once_and_as_if_undisturbed_whichever_process_is_killed(service, kill):
    num_jobs, t0 = 6, time.monotonic()
    undisturbed = [service.submit(seed=seed, count=12) for seed in range(num_jobs)]
    expected = [service.wait(job) and service.volumes(job) for job in undisturbed]
    print("undisturbed", time.monotonic() - t0)
    jobs = [service.submit(seed=seed, count=12, key=f"job-{seed}") for seed in range(num_jobs)]
    for kind in KINDS:
        while not any(service.status(job)["state"] == "running" for job in jobs):
            time.sleep(0.1)
        kill(kind)
        print("killed", kind, time.monotonic() - t0, [service.status(job)["state"] for job in jobs])
        time.sleep(1)

    for seed, job in enumerate(jobs):
        ended = service.wait(job)
        print(time.monotonic() - t0, ended["state"], ended["attempts"], ended["error"])
        assert ended["state"] == "succeeded", ended
        assert service.volumes(job) == expected[seed]
        assert service.submit(seed=seed, count=12, key=f"job-{seed}") == job  # nothing was accepted twice
