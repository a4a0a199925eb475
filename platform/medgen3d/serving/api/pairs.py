"""`/v1/pairs` and `/v1/images`: small requests whose client waits. They make jobs like all others."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse

from medgen3d.serving.api.dependencies import Served, Synthesizer
from medgen3d.serving.api.problems import documented, problem
from medgen3d.serving.api.results import DeadlineError, result_of, wait_for
from medgen3d.serving.api.submission import IdempotencyKey, keep_stream, submit_job
from medgen3d.serving.errors import RefusedError
from medgen3d.serving.execution.results import files_of
from medgen3d.serving.schemas import JobRequest, PairsRequest

router = APIRouter(prefix="/v1", tags=["waiting"])
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS = documented(400, 403, 404, 408, 409, 413, 422, 429, 500, 503, 504)


@router.post(
    "/pairs",
    response_class=FileResponse,
    responses={
        200: {"description": "The zip file of the result", "content": {"application/zip": _BINARY}},
        **_REFUSALS,
    },
)
async def pairs(
    http: Request, body: PairsRequest, service: Served, caller: Synthesizer, key: IdempotencyKey = None
) -> Any:
    """A few pairs at once. After `deadline_s` the answer is 504 with the job's id, and the job goes on."""
    service.held_connections.refuse_too_many()
    await asyncio.to_thread(service.rate_limiter.take, caller.owner)
    most = service.settings.max_pairs_waited_for
    if body.count > most:
        raise RefusedError(f"count: found {body.count}, expected at most {most} to wait for. Use POST /v1/jobs.")
    request = JobRequest.model_validate(body.model_dump(exclude={"deadline_s"}))
    job_id = await submit_job(http, service, caller, request, key)
    try:
        await wait_for(http, service, job_id, body.deadline_s)
    except DeadlineError as late:
        return _too_late(late)
    return await asyncio.to_thread(result_of, service, caller.owner, job_id, None)


@router.post(
    "/images",
    response_class=FileResponse,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The mask: a NIfTI file, .nii or .nii.gz, with the pipeline's label ids at its spacing.",
            "content": {"application/octet-stream": _BINARY, "application/gzip": _BINARY},
        }
    },
    responses={200: {"description": "The image, .nii.gz", "content": {"application/gzip": _BINARY}}, **_REFUSALS},
)
async def images(
    http: Request,
    service: Served,
    caller: Synthesizer,
    pipeline: Annotated[str, Query(min_length=1, max_length=200, examples=["builtin/hippocampus"])],
    seed: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    style: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    deadline_s: Annotated[float, Query(gt=0, le=3600)] = 60.0,
    key: IdempotencyKey = None,
) -> Any:
    """An image for a mask, on the mask's own grid. After `deadline_s`: 504 with the job's id, and the job goes on."""
    service.held_connections.refuse_too_many()
    await asyncio.to_thread(service.rate_limiter.take, caller.owner)
    request = JobRequest(pipeline=pipeline, seed=seed, style=style, mask_use="full")
    with service.files.incoming() as folder:
        upload = Path(folder) / "incoming"
        await keep_stream(http.stream(), upload)
        job_id = await submit_job(http, service, caller, request, key, upload)
    try:
        await wait_for(http, service, job_id, deadline_s)
    except DeadlineError as late:
        return _too_late(late)
    attempt = await asyncio.to_thread(service.store.result_attempt, job_id, caller.owner)
    assert attempt is not None
    names = files_of(service.files.result(job_id, attempt))
    (name,) = (name for name in names if name.startswith("images/"))
    return await asyncio.to_thread(result_of, service, caller.owner, job_id, name)


def _too_late(late: DeadlineError) -> JSONResponse:
    job_id, deadline_s = late.args
    return problem(
        504,
        f"job {job_id} has not ended within {deadline_s:g} s and goes on. Fetch it at /v1/jobs/{job_id}.",
        headers={"Location": f"/v1/jobs/{job_id}"},
        job=job_id,
    )
