"""The HTTP service on this machine, on a Ray of its own, for as long as somebody wants it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError
from medgen3d.recipes.cluster import connect


@contextmanager
def served_here(config: ExperimentConfig, *, verbose: bool = False) -> Iterator[str]:
    """The service on a Ray of its own on this machine; yields its address once it is ready.

    At the end answers under way are finished, and unfinished jobs are given back: they go on when a service is started
    with the same folder and database.

    Args:
        config: Of which `serving` and `storage` count.
        verbose: Show what Ray and the service log.

    Raises:
        ConfigError: The address cannot be listened at, or the service does not start.
        RegistryError: A pipeline that is to be offered does not exist.
    """
    from medgen3d.serving.inference.pipeline_catalog import PipelineCatalog, PipelineRegistry

    catalog = PipelineCatalog(PipelineRegistry(config.storage), config.serving.pipelines)
    catalog.offered_versions()  # a wrong name is told at once
    port = _free_port(config.serving.host, config.serving.port)
    with connect(verbose=verbose):
        from ray import serve

        from medgen3d.serving.on_ray.app import NAME, build_app

        serve.start(http_options={"host": config.serving.host, "port": port})
        try:
            try:
                serve.run(build_app(config.with_absolute_paths()), name=NAME, route_prefix="/")
            except RuntimeError as error:
                reason = serve.status().applications[NAME].message.strip().splitlines()
                raise ConfigError(f"the service did not start: {reason[-1] if reason else error}") from error
            yield f"http://{config.serving.host}:{port}"
        finally:
            serve.shutdown()


def unfinished_jobs(config: ExperimentConfig) -> int:
    """How many jobs wait in the service's database, which need not be running."""
    from medgen3d.serving.queue.database import Database, sqlite_url
    from medgen3d.serving.queue.job_store import JobStore

    database = Database(config.serving.database_url or sqlite_url(config.serving_dir / "jobs.db"))
    try:
        counts = JobStore(database, max_queued=1, jobs_per_owner=1).counts()
    finally:
        database.close()
    return sum(counts.get(state, 0) for state in ("queued", "running"))


def _free_port(host: str, port: int) -> int:
    """Ray Serve would take the next port without a word."""
    try:
        with socket.create_server((host, port)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise ConfigError(f"nothing can listen at {host}:{port} ({error.strerror}); choose another --port") from error
