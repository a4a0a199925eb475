"""Answers that are files of a result, and answers that wait for one."""

import asyncio
import time
from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from medgen3d.serving.api.problems import problem
from medgen3d.serving.execution.results import files_of
from medgen3d.serving.job_states import FINAL, JobState
from medgen3d.serving.schemas import JobStatus
from medgen3d.serving.service import Service

_LOOK_EVERY_S = 0.1


class DeadlineError(Exception):
    """The job goes on although its client may no longer wait. args: (job id, deadline in seconds)."""


class RangedFile(FileResponse):
    """A file, or a range of it; what Starlette refuses in plain text is a problem as every other refusal is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = 0

        async def passed(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = message["status"]
            if not refused:
                await send(message)

        await super().__call__(scope, receive, passed)
        if refused:
            size = Path(self.path).stat().st_size
            headers = {"Content-Range": f"bytes */{size}"} if refused == 416 else None
            sentence = (
                f"found a Range that the {size} bytes of the file do not have, expected bytes=FIRST-LAST. Correct it."
            )
            await problem(refused, sentence, headers=headers)(scope, receive, send)


def result_of(service: Service, owner: str | None, job_id: str, file: str | None) -> RangedFile:
    """The zip file of a job that succeeded, or one file of it.

    Raises:
        UnknownJobError: There is no such job of this owner.
        HTTPException: It has no result (409), or there is no such file in it (404).
    """
    attempt = service.store.result_attempt(job_id, owner)
    if attempt is None:
        state = service.store.status(job_id, owner).state
        raise HTTPException(409, f"the job is {state} and has no result. Fetch it once its state is succeeded.")
    path = service.files.archive(job_id, attempt)
    if not path.is_file():
        raise HTTPException(404, "the files of the result are gone. Submit the request again.")
    if file is None:
        return RangedFile(path, media_type="application/zip", filename=f"{job_id}.zip")
    files = files_of(service.files.result(job_id, attempt))
    if file not in files:
        raise HTTPException(404, f"the result has no file {file!r}; it has {', '.join(list(files)[:6])}, ...")
    kind = "application/gzip" if file.endswith(".gz") else "application/octet-stream"
    return RangedFile(files[file], media_type=kind, filename=file.rpartition("/")[2])


async def wait_for(http: Request, service: Service, job_id: str, deadline_s: float) -> JobStatus:
    """A job once it has succeeded.

    Raises:
        DeadlineError: It has not ended in time, or its client has gone.
        HTTPException: It failed (500), or was cancelled (409).
    """
    until = time.monotonic() + deadline_s
    with service.held_connections.one():
        while True:
            status = await asyncio.to_thread(service.store.status, job_id, None)
            if status.state in FINAL:
                break
            if time.monotonic() >= until or await http.is_disconnected():
                raise DeadlineError(job_id, deadline_s)
            await asyncio.sleep(min(_LOOK_EVERY_S, max(0.0, until - time.monotonic())))
    if status.state == JobState.FAILED:
        raise HTTPException(500, f"job {job_id} failed: {status.error}")
    if status.state == JobState.CANCELLED:
        raise HTTPException(409, f"job {job_id} was cancelled")
    return status
