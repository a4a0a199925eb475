"""Options of the processes that draw for the HTTP service on Ray."""

from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from medgen3d.config.section import ConfigSection

NonNegativeInt = Annotated[int, Field(ge=0)]
WIDTHS = {"cpu": 1, "cuda": 8}
"""Rows or cases that are drawn together where nothing is chosen, by kind of device: CPUs gain little by more."""


class StageReplicas(ConfigSection):
    """The processes of one stage."""

    min_replicas: NonNegativeInt = 1
    """Processes that are always there; 0 lets the stage go to sleep, and its next case waits until one has started."""
    max_replicas: PositiveInt = 1
    """Processes under load. A single machine gains by as many as it has cores or GPUs to spare."""
    target_cases: PositiveFloat = 4.0
    """Cases that each process has before another one is added."""
    max_cases: PositiveInt = 16
    """Cases that one process takes at a time; more wait until one is free."""
    width: PositiveInt | None = None
    """Windows or slices that advance in one device batch; the refiner's batch is one volume. Part of the result's
    identity, like `threads`. None: 1 on CPUs, where wider batches gain little, and 8 on GPUs."""
    cpus: PositiveFloat = 0.5
    """Logical CPUs that Ray sets aside for each process."""
    gpus: PositiveFloat = 0.3
    """Share of a GPU that Ray sets aside for each process, if GPUs are used. Nothing keeps it from taking more."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than max_replicas {self.max_replicas}")
        return self


class EngineConfig(ConfigSection):
    """How the three stages are spread over processes, and how models come and go."""

    mask_generator: StageReplicas = StageReplicas(max_replicas=2)
    image_sequence_generator: StageReplicas = StageReplicas()
    refiner: StageReplicas = StageReplicas(max_replicas=2, target_cases=2.0)
    ingress: PositiveInt | None = None
    """Processes that answer requests and run jobs; several need a database that all of them reach. None: two, of which
    one answers while the other is replaced, if the cluster has four CPUs and all of them can reach the database."""
    use_gpu: bool | None = None
    """None: if the cluster has GPUs for one process of each stage when the service is deployed."""
    threads: PositiveInt = 1
    """Torch threads per process. Part of the result's identity, like `width`."""
    cases_at_once: PositiveInt = 8
    """Cases of one job that are drawn at a time."""
    poll_s: PositiveFloat = 5.0
    """How often the registry is asked what the offered references mean now [s]."""
    model_mib: PositiveInt = 2048
    """Weights that one process keeps in memory [MiB]; the pipelines used least recently are given up first."""
    upscale_delay_s: PositiveFloat = 2.0
    """How long a stage is short of processes before one is added [s]."""
    downscale_delay_s: PositiveFloat = 300.0
    """How long a stage has processes to spare before one is stopped [s]."""
    drain_s: PositiveFloat = 600.0
    """How long a process that is to stop may finish what it has [s]; what it does not finish is begun again."""
    step_timeout_s: PositiveFloat = 300.0
    """Longest step on a device; a process that takes longer is taken for stuck and replaced [s]."""
