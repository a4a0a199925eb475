"""The service on a real Ray Serve: what it promises when all is well."""

import time

import pytest

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def service(serve_knee, registry, tmp_path_factory):
    engine = {"poll_s": 0.5, "mask_generator": {"max_replicas": 1}, "refiner": {"max_replicas": 1}}
    with serve_knee(tmp_path_factory.mktemp("serving"), engine=engine, max_running=16) as running:
        yield running
    registry.promote(1)


def test_a_jobs_pairs_are_those_of_its_seed_whatever_runs_beside_it(service):
    alone = service.submit(seed=5, count=2)
    service.wait(alone)
    crowd = [service.submit(seed=seed, count=2) for seed in (5, 6, 7, 5)]
    for job in crowd:
        assert service.wait(job)["state"] == "succeeded"
    expected = service.volumes(alone)
    assert len(expected) == 4
    assert service.volumes(crowd[0]) == service.volumes(crowd[3]) == expected
    assert service.volumes(crowd[1]) != expected


def test_a_cancelled_job_frees_the_device_within_a_second(service):
    long = service.submit(seed=1, count=300, depth=9)
    service.wait(long, states=("running",))
    while not any(stage["done"] for stage in service.status(long)["progress"]):
        time.sleep(0.05)
    assert service.ask("DELETE", f"/v1/jobs/{long}").json()["state"] == "cancelled"
    began = time.monotonic()
    short = service.submit(seed=2, depth=4)
    service.wait(short, within_s=5)
    assert time.monotonic() - began < 3.0
