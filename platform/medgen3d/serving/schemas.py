"""The requests and answers of the HTTP API. These models are the OpenAPI document; docs/serving.md explains them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from medgen3d.serving.job_states import JobState

MaskUse = Literal["full", "partial"]
VoxelSide = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
"""A voxel's side [mm]."""


class JobRequest(BaseModel):
    """What to draw. A mask, if any, travels beside it as a NIfTI file (multipart part `mask`).

    pipeline: `NAME` (its champion), `NAME@3`, `NAME@champion` or `builtin/NAME`; pinned to a version when accepted.
    count: Number of pairs.
    seed: Same seed, same pairs.
    depth: Slices D of each drawn mask; None: drawn as in the training cases. Not with a mask.
    spacing_mm: Voxel size along (D, H, W) to which finished pairs are resampled; None: the pipeline's own.
    style: Pairs with the same number share their appearance (scanner, contrast); None: each has its own.
    mask_use: What the mask beside the request is for. `full`: an image is drawn for it and it is not changed.
        `partial`: `known_slices` of it are kept and the rest is drawn.
    known_slices: Slices (along D, from inferior) of a partial mask that are known; None: those that hold a label.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Annotated[str, Field(min_length=1, max_length=200, examples=["builtin/hippocampus"])]
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    depth: Annotated[int, Field(ge=1, le=10_000)] | None = None
    spacing_mm: tuple[VoxelSide, VoxelSide, VoxelSide] | None = None
    style: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    mask_use: MaskUse | None = None
    known_slices: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=10_000)] | None = None


class StageProgress(BaseModel):
    """How far a stage is.

    done, total: Work units of the whole job (denoising steps, slices), not cases.
    seconds: Time that went into what is done [s], each moment counted for the stage that went on next.
    """

    stage: str
    done: int
    total: int
    seconds: float = 0.0


class JobStatus(BaseModel):
    """A job as clients see it.

    pipeline: With the version that it is pinned to, `NAME@3`.
    place: Jobs before it in the queue, 0 for the next one; None unless it is queued.
    eta_s: Estimated seconds until it ends; None if nothing is known.
    attempts: How often it was begun.
    error: Why it failed, in a sentence.
    result_bytes: Size of the result; None unless it succeeded.
    """

    id: str
    state: JobState
    request: JobRequest
    pipeline: str
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    progress: list[StageProgress] = []
    place: int | None = None
    eta_s: float | None = None
    attempts: int = 0
    error: str = ""
    result_bytes: int | None = None


class PipelineLimits(BaseModel):
    """What this service accepts for a pipeline. plane: Largest (H, W) of a mask [voxels]."""

    max_count: int
    max_depth: int
    plane: tuple[int, int]
    max_voxels: int


class PipelineSummary(BaseModel):
    """A pipeline that can be asked for. labels: Original label id -> name, background included."""

    name: str
    version: int
    modality: Literal["CT", "MR"]
    phantom: bool
    labels: dict[int, str]
    spacing_mm: tuple[float, float, float]
    limits: PipelineLimits


class PipelineDetails(PipelineSummary):
    """card: The model card, Markdown; empty if there is none."""

    card: str = ""


class Problem(BaseModel):
    """Every refusal.

    detail: One sentence: what was found, what was expected, what to do.
    job: The job that goes on although this answer could not wait for it.
    """

    detail: str
    job: str | None = None


class PairsRequest(JobRequest):
    """A few pairs that are waited for. deadline_s: Longest wait [s]; the job goes on after it."""

    deadline_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0
