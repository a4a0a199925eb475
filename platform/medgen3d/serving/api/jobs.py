"""`/v1/jobs`: submit, list, look, follow, fetch, cancel."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from medgen3d.serving.api.dependencies import Served, Synthesizer
from medgen3d.serving.api.middleware import MAX_JSON_BYTES, media_type
from medgen3d.serving.api.problems import documented, sentence_of
from medgen3d.serving.api.results import result_of
from medgen3d.serving.api.submission import IdempotencyKey, keep_file, submit_job
from medgen3d.serving.errors import RefusedError
from medgen3d.serving.job_states import FINAL
from medgen3d.serving.schemas import JobRequest, JobStatus
from medgen3d.serving.security.tokens import Caller
from medgen3d.serving.service import Service

_LOOK_EVERY_S = 0.5
_SAY_SOMETHING_EVERY_S = 15.0  # so that proxies do not take a silent stream for a dead one

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
JobId = Annotated[str, InPath(description="As the answer to POST /v1/jobs gave it.", min_length=32, max_length=32)]

_JSON_SCHEMA = JobRequest.model_json_schema(ref_template="#/components/schemas/{model}")
_EXAMPLES = {
    "drawn": {
        "summary": "Two pairs; the mask is drawn too",
        "value": {"pipeline": "builtin/hippocampus", "count": 2, "seed": 7},
    },
    "resampled": {
        "summary": "One appearance, thicker slices",
        "value": {"pipeline": "builtin/hippocampus", "count": 4, "style": 1, "spacing_mm": [2.0, 1.0, 1.0]},
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _JSON_SCHEMA, "examples": _EXAMPLES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request", "mask"],
                    "properties": {
                        "request": _JSON_SCHEMA,
                        "mask": {
                            "type": "string",
                            "format": "binary",
                            "description": "NIfTI file, .nii or .nii.gz: the pipeline's label ids, at its spacing.",
                        },
                    },
                },
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }
}


@router.post(
    "",
    status_code=202,
    response_model=JobStatus,
    responses=documented(400, 403, 404, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=_BODY,
)
async def submit(
    http: Request, response: Response, service: Served, caller: Synthesizer, key: IdempotencyKey = None
) -> JobStatus:
    """Accept a job. An accepted job is not lost, whatever dies; its `id` is good until its result is removed.

    As JSON, or with a mask as multipart form of `request` (JSON) and `mask` (NIfTI).
    """
    await asyncio.to_thread(service.rate_limiter.take, caller.owner)
    kind = media_type(http.headers)
    if kind not in ("application/json", "multipart/form-data"):
        raise HTTPException(415, f"found the media type {kind!r}, expected application/json or multipart/form-data.")
    job_id = await (_from_json if kind == "application/json" else _from_form)(http, service, caller, key)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return await asyncio.to_thread(service.store.status, job_id, caller.owner)


@router.get("", responses=documented(403, 422))
async def list_jobs(
    service: Served, caller: Synthesizer, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[JobStatus]:
    """Your newest jobs, newest first; with the scope `admin`, everybody's."""
    return await asyncio.to_thread(service.store.list, caller.sees, limit)


@router.get("/{job_id}", responses=documented(403, 404, 422))
async def status(http: Request, job_id: JobId, service: Served, caller: Synthesizer) -> JobStatus:
    """How far a job is."""
    http.state.job = job_id
    return await asyncio.to_thread(service.store.status, job_id, caller.sees)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: each `data` is the job's state (JobStatus), the last one final.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(403, 404, 422, 503),
    },
)
async def events(http: Request, job_id: JobId, service: Served, caller: Synthesizer) -> StreamingResponse:
    """Follow a job until it ends."""
    http.state.job = job_id
    first = await asyncio.to_thread(service.store.status, job_id, caller.sees)
    service.held_connections.refuse_too_many()
    return StreamingResponse(
        _events(service, caller, first), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


@router.head("/{job_id}/result", include_in_schema=False)
@router.get(
    "/{job_id}/result",
    response_class=FileResponse,
    responses={
        200: {
            "description": "A zip file with a synthetic set: images/, labels/, manifest.parquet, dataset.json.",
            "content": {
                "application/zip": {"schema": {"type": "string", "format": "binary"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        206: {"description": "The range that was asked for"},
        **documented(400, 403, 404, 409, 416, 422),
    },
)
async def result(
    http: Request,
    job_id: JobId,
    service: Served,
    caller: Synthesizer,
    file: Annotated[
        str | None,
        Query(max_length=200, description="One file of it.", examples=["images/syn_00000.nii.gz"]),
    ] = None,
) -> FileResponse:
    """Fetch the result of a job that succeeded, whole or a range of it."""
    http.state.job = job_id
    return await asyncio.to_thread(result_of, service, caller.sees, job_id, file)


@router.delete("/{job_id}", responses=documented(403, 404, 422))
async def cancel(http: Request, job_id: JobId, service: Served, caller: Synthesizer) -> JobStatus:
    """End a job; whatever draws it stops within about a second. A job that has ended stays as it is."""
    http.state.job = job_id
    return await asyncio.to_thread(service.store.cancel, job_id, caller.sees)


async def _from_json(http: Request, service: Service, caller: Caller, key: str | None) -> str:
    return await submit_job(http, service, caller, _parse(await http.body()), key)


async def _from_form(http: Request, service: Service, caller: Caller, key: str | None) -> str:
    async with http.form(max_files=2, max_fields=1, max_part_size=MAX_JSON_BYTES) as form:
        unknown = sorted(set(form) - {"request", "mask"})
        if unknown or len(form.multi_items()) > len(form):
            raise RefusedError(f"found the parts {sorted(form)}, expected request and mask, once each.")
        request, mask = form.get("request"), form.get("mask")
        if isinstance(request, UploadFile):
            request = (await request.read(MAX_JSON_BYTES)).decode("utf-8", "replace")
        if request is None:
            raise RefusedError("found no part `request`, expected JSON. Send it beside the mask.")
        parsed = _parse(request.encode())
        if mask is None:
            return await submit_job(http, service, caller, parsed, key)
        if not isinstance(mask, UploadFile):
            raise RefusedError("found the part `mask` without a file name, expected a file. Send it as a file.")
        with service.files.incoming() as folder:
            upload = Path(folder) / "incoming"
            await keep_file(mask.file, upload)
            return await submit_job(http, service, caller, parsed, key, upload)


def _parse(text: bytes) -> JobRequest:
    try:
        return JobRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError(sentence_of({**first, "loc": first["loc"]})) from error


async def _events(service: Service, caller: Caller, status: JobStatus) -> AsyncIterator[str]:
    said, quiet = "", 0.0
    with service.held_connections.one():
        while True:
            text = status.model_dump_json()
            if text != said:
                yield f"data: {text}\n\n"
                said, quiet = text, 0.0
            elif quiet >= _SAY_SOMETHING_EVERY_S:
                yield ": still here\n\n"
                quiet = 0.0
            if status.state in FINAL:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
            quiet += _LOOK_EVERY_S
            status = await asyncio.to_thread(service.store.status, status.id, caller.sees)
