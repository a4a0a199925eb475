"""The Serve application: an ingress with the HTTP endpoints and the runner, and one deployment per stage.

The runner lives in the ingress: an accepted job begins without a poll in between, and since jobs are durable and leased,
nothing is lost with the process that ran them. The endpoints know nothing of Ray.
"""

import asyncio
import logging
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig

from medgen3d.config.engine import EngineConfig, StageReplicas
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.serving.kept import identity_of
from medgen3d.serving.offers import Offers
from medgen3d.serving.on_ray.engine import RayEngine
from medgen3d.serving.on_ray.source import Source, StageLoader
from medgen3d.serving.on_ray.stage import StageReplica

NAME = "medgen3d"
"""Of the application, and of its ingress."""
INGRESS = "ingress"
_WIDTHS = {"cpu": 1, "cuda": 8}
_REQUESTS_AT_ONCE = 1000  # of one ingress: most of them wait for a job's next event


def build(args: dict[str, Any]) -> serve.Application:
    """What a Serve config's `import_path` names.

    Args:
        args: An `ExperimentConfig`, of which `serving` and `storage` count.

    Raises:
        ValidationError: A key is unknown or a value out of range.
    """
    return build_app(ExperimentConfig.model_validate(args))


def build_app(config: ExperimentConfig) -> serve.Application:
    """The application. Ray must run, since it decides whether GPUs are used."""
    engine = config.serving.engine
    device = "cuda" if uses_gpu(engine) else "cpu"
    widths = {stage: width_of(getattr(engine, stage), stage, device) for stage in CHAIN}
    source = Source(config.storage, config.serving.pipelines)
    stages = {
        stage: stage_deployment(
            stage, StageLoader(source, stage, device), source.offered, config, widths[stage], device
        )
        for stage in CHAIN
    }
    return _ingress(config).bind(config, stages, source, widths, device)


def uses_gpu(engine: EngineConfig) -> bool:
    """As configured, or whether the cluster has room for one process of each stage on its GPUs."""
    if engine.use_gpu is not None:
        return engine.use_gpu
    return bool(ray.cluster_resources().get("GPU", 0) >= sum(getattr(engine, stage).gpus for stage in CHAIN))


def width_of(replicas: StageReplicas, stage: str, device: str) -> int:
    """Rows of a device batch; the refiner's is a volume."""
    return 1 if stage == "refiner" else replicas.width or _WIDTHS[device]


def stage_deployment(
    stage: str, load: Any, warm: Any, config: ExperimentConfig, width: int, device: str
) -> serve.Application:
    """A stage's deployment; `load` and `warm` as `StageReplica` takes them."""
    engine, most_cases = config.serving.engine, config.serving.max_running * config.serving.engine.cases_at_once
    replicas: StageReplicas = getattr(engine, stage)
    scaling = AutoscalingConfig(
        min_replicas=replicas.min_replicas,
        initial_replicas=max(replicas.min_replicas, 1),
        max_replicas=replicas.max_replicas,
        target_ongoing_requests=replicas.target_cases,
        upscale_delay_s=engine.upscale_delay_s,
        downscale_delay_s=engine.downscale_delay_s,
    )
    deployment = serve.deployment(
        name=stage,
        autoscaling_config=scaling,
        max_ongoing_requests=replicas.max_cases,
        max_queued_requests=most_cases,  # of one ingress, which never has more under way
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus if device == "cuda" else 0},
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=engine.drain_s,
    )(StageReplica)
    return deployment.bind(
        stage,
        load,
        warm,
        width=width,
        threads=engine.threads,
        max_bytes=engine.model_mib * 2**20,
        step_timeout_s=engine.step_timeout_s,
    )
