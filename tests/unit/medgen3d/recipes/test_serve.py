"""What is found out before Ray is started, and after it was stopped."""

import socket

import pytest
import ray

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError, RegistryError
from medgen3d.recipes.serve import served_here, unfinished_jobs
from medgen3d.serving.queue.database import Database, sqlite_url
from medgen3d.serving.queue.job_store import JobStore, NewJob, new_id
from medgen3d.serving.queue.leases import Leases
from medgen3d.serving.schemas import JobRequest


def configured(tmp_path, **serving) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"serving": serving, "storage": {"root": str(tmp_path)}})


def test_a_pipeline_that_does_not_exist_is_told_before_anything_starts(tmp_path):
    config = configured(tmp_path, pipelines=["builtin/elbow"])
    with pytest.raises(RegistryError, match="no pipeline 'elbow' is built in"), served_here(config):
        pass
    assert not ray.is_initialized()


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = rf"nothing can listen at 127\.0\.0\.1:{port} \(.*\); choose another"
        with pytest.raises(ConfigError, match=sentence), served_here(configured(tmp_path, port=port)):
            pass
    assert not ray.is_initialized()


def test_jobs_that_a_stopped_service_left_are_counted(tmp_path):
    config = configured(tmp_path)
    config.serving_dir.mkdir(parents=True)
    database = Database(sqlite_url(config.serving_dir / "jobs.db"))
    store, leases = JobStore(database, max_queued=9, jobs_per_owner=9), Leases(database, lease_s=9, max_attempts=9)
    for seed in range(3):
        request = JobRequest(pipeline="knee", seed=seed)
        store.submit(
            NewJob(id=new_id(), owner="anna", request=request, pipeline="knee@1", digest="d" * 64, num_pairs=1)
        )
    claimed = leases.claim("runner")
    leases.finish(claimed.id, claimed.attempt, 1)
    leases.claim("runner")
    database.close()
    assert unfinished_jobs(config) == 2  # one queued, one running
