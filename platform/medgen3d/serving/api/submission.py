"""From a request and perhaps a mask to a job: what all endpoints that make one share."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated

from fastapi import Header, Request

from medgen3d.core.volume import Volume
from medgen3d.serving.execution.job_planning import check_request, limits_of
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d.serving.queue.job_store import NewJob, new_id
from medgen3d.serving.schemas import JobRequest
from medgen3d.serving.security.tokens import Caller
from medgen3d.serving.security.uploads import StoredMask, read_mask, store_mask
from medgen3d.serving.service import Service

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Of your choice: the same key never makes a second job. Another request with it is refused (409).",
        examples=["study-7-part-3"],
    ),
]


async def submit_job(
    http: Request,
    service: Service,
    caller: Caller,
    request: JobRequest,
    key: str | None,
    upload: Path | None = None,
) -> str:
    """Make a job, or find the one that the same key made before; its id.

    Args:
        http: For the audit log.
        service: Where.
        caller: To whom it belongs.
        request: What is asked for.
        key: Idempotency key.
        upload: The mask as it came, in a folder of its own.

    Raises:
        RefusedError, RegistryError: A sentence for the client.
    """
    loaded = await service.engine.find(request.pipeline)
    http.state.pipeline = loaded.reference
    job_id = new_id()
    accepted = False
    try:
        mask, kept = await _kept_mask(service, loaded, upload, job_id)
        await asyncio.to_thread(check_request, request, loaded, limits_of(loaded, service.settings), mask)
        job = NewJob(
            id=job_id,
            owner=caller.owner,
            request=request,
            pipeline=loaded.reference,
            digest=_digest(request, kept),
            num_pairs=request.count,
            mask_digest=kept.digest if kept else None,
            idempotency_key=key,
        )
        found, accepted = await asyncio.to_thread(service.store.submit, job)
    finally:
        if not accepted:
            await asyncio.to_thread(service.files.remove, job_id)
    http.state.job = found
    service.runner.wake()
    return found


async def keep_stream(chunks: AsyncIterator[bytes], target: Path) -> None:
    """Write a body to a file piece by piece; the middleware bounds it."""
    with target.open("wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)


async def keep_file(source: IO[bytes], target: Path) -> None:
    """Copy what was spooled of a multipart body."""

    def copy() -> None:
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)

    await asyncio.to_thread(copy)


async def _kept_mask(
    service: Service, loaded: ServedPipeline, upload: Path | None, job_id: str
) -> tuple[Volume | None, StoredMask | None]:
    if upload is None:
        return None, None

    def check() -> tuple[Volume, StoredMask]:
        target = service.files.mask(job_id)
        target.parent.mkdir(parents=True)
        kept = store_mask(upload, target, loaded.dataset, limits_of(loaded, service.settings))
        return read_mask(target), kept

    async with service.checks:
        return await asyncio.to_thread(check)


def _digest(request: JobRequest, kept: StoredMask | None) -> str:
    """What an idempotency key stands for. The pipeline as it was named: its champion may change between two calls."""
    asked = request.model_dump(mode="json") | {"mask": kept.digest if kept else None}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
