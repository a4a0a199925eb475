"""The Serve application: an ingress with the HTTP endpoints and the runner, and one deployment per stage.

The runner lives in the ingress, so that an accepted job begins at once. Jobs are durable and leased, so nothing is lost
with the process that ran them. The endpoints know nothing of Ray.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.handle import DeploymentHandle

from medgen3d.config.engine import WIDTHS, EngineConfig, StageReplicas
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.serving.api.app import make_app
from medgen3d.serving.execution.stage_checkpoints import identity_of
from medgen3d.serving.inference.pipeline_catalog import Device, PipelineCatalog, PipelineRegistry, StageLoader
from medgen3d.serving.on_ray.engine import RayEngine
from medgen3d.serving.on_ray.stage_replica import StageReplica
from medgen3d.serving.service import open_service

NAME = "medgen3d"
"""Of the application."""
INGRESS = "ingress"
_REQUESTS_AT_ONCE = 1000  # of one ingress: most of them wait for a job's next event
_CPUS_FOR_TWO = 4
_RETRY_AFTER_S = 5
_HEALTH_PERIOD_S = 2.0  # a process that died is missed after that
_STARTS = 3  # a process that cannot start fails the deployment, and does not try for ever
_STOP_S = 15.0  # for answers under way; jobs are given back at once


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
    device: Device = "cuda" if uses_gpu(engine) else "cpu"
    widths = {stage: width_of(getattr(engine, stage), stage, device) for stage in CHAIN}
    catalog = PipelineCatalog(
        PipelineRegistry(config.storage),
        config.serving.pipelines,
        batch=widths["mask_generator"],
        threads=engine.threads,
        device=device,
    )
    stages = {
        stage: stage_deployment(
            stage, StageLoader(catalog, stage, device), catalog.offered_versions, config, widths[stage], device
        )
        for stage in CHAIN
    }
    machines = [node for node in ray.nodes() if node["Alive"]]
    num_ingress = ingress_processes(
        engine.ingress,
        cpus=ray.cluster_resources().get("CPU", 0),
        is_shared=len(machines) == 1 or config.serving.database_url is not None,
    )
    return _deployed_ingress(num_ingress).bind(config, catalog, widths, device, stages)


def ingress_processes(chosen: int | None, *, cpus: float, is_shared: bool) -> int:
    """As configured, or two where there is room and a database that both reach: SQLite serves one machine alone."""
    if chosen is not None:
        return chosen
    return 2 if cpus >= _CPUS_FOR_TWO and is_shared else 1


class Ingress:
    """The HTTP endpoints, with the runner of jobs behind them.

    Args:
        config: Of the service.
        catalog: The pipelines that are offered.
        widths: Rows of a device batch, by stage.
        device: Where stages draw.
        stages: Their handles.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        catalog: PipelineCatalog,
        widths: Mapping[str, int],
        device: Device,
        stages: Mapping[str, DeploymentHandle],
    ) -> None:
        os.umask(0o077)  # of this process: whatever it writes is the service's alone
        engine = config.serving.engine
        identity = identity_of(widths=dict(widths), threads=engine.threads, device=device)
        self._engine = RayEngine(stages, catalog, engine, identity)
        self._service = open_service(config.serving, config.serving_dir, self._engine)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve, in the event loop in which requests are answered."""
        self._watch = asyncio.create_task(self._engine.watch())
        return make_app(self._service)

    def check_health(self) -> None:
        """Called by Serve from time to time; a process that raises is replaced."""
        if self._watch.done():
            raise RuntimeError("the registry is no longer watched")


def _deployed_ingress(num_replicas: int) -> serve.Deployment:
    return serve.deployment(
        name=INGRESS,
        num_replicas=num_replicas,
        max_ongoing_requests=_REQUESTS_AT_ONCE,
        max_queued_requests=_REQUESTS_AT_ONCE,
        health_check_period_s=_HEALTH_PERIOD_S,
        max_constructor_retry_count=_STARTS,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=_RETRY_AFTER_S),
        ray_actor_options={"num_cpus": 0.5},
        graceful_shutdown_timeout_s=_STOP_S,
    )(serve.ingress()(Ingress))


def uses_gpu(engine: EngineConfig) -> bool:
    """As configured, or whether the cluster has room for one process of each stage on its GPUs."""
    if engine.use_gpu is not None:
        return engine.use_gpu
    return bool(ray.cluster_resources().get("GPU", 0) >= sum(getattr(engine, stage).gpus for stage in CHAIN))


def width_of(replicas: StageReplicas, stage: str, device: str) -> int:
    """Rows of a device batch: a volume in the refiner, and one row on a CPU (`TrainedStage.advance`)."""
    return 1 if stage == "refiner" or device == "cpu" else replicas.width or WIDTHS[device]


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
        health_check_period_s=_HEALTH_PERIOD_S,
        max_constructor_retry_count=_STARTS,
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
