"""From errors to answers: every refusal is a `Problem`, and no client ever sees a stack trace."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medgen3d.core.errors import Medgen3dError, RegistryError
from medgen3d.serving.errors import BusyError, KeyReusedError, OwnerBusyError, RefusedError, UnknownJobError
from medgen3d.serving.schemas import Problem

MAX_DETAIL = 1000
"""Characters of a refusal."""
_SHOWN = 80  # characters of a value that was found
_log = logging.getLogger(__name__)


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None, job: str | None = None) -> JSONResponse:
    """A refusal in one sentence, on one line, cut where it repeats too much of what was sent."""
    sentence = " ".join(detail.split())
    if len(sentence) > MAX_DETAIL:
        sentence = f"{sentence[: MAX_DETAIL - 3]}..."
    content = Problem(detail=sentence, job=job).model_dump(exclude_none=True)
    return JSONResponse(content, status, headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the refusals of an endpoint beside those that all have."""
    shown = {
        400: "The body cannot be read",
        401: "No valid token",
        403: "The token lacks the scope",
        404: "There is no such thing, or it belongs to another owner",
        408: "The body took too long",
        409: "It contradicts what is there",
        413: "Too large",
        415: "Another media type than is read here",
        416: "No such range",
        422: "It cannot be drawn as it is asked for",
        429: "This owner asks for too much; see Retry-After",
        500: "The job failed, or an error in the service; its log says more",
        503: "The service has too much to do; see Retry-After",
        504: "The deadline has passed; the job goes on",
    }
    return {status: {"model": Problem, "description": shown[status]} for status in (401, *statuses)}


def explain_errors(app: FastAPI) -> None:
    """Let the app answer errors with problems."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RegistryError, _registry)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(Exception, _bug)


def sentence_of(error: dict[str, Any], where: tuple[str, ...] = ("body", "query", "path", "header")) -> str:
    """One of pydantic's errors as a sentence: which field, what was found, what is allowed."""
    place = ".".join(str(part)[:_SHOWN] for part in error["loc"] if part not in where) or "the request"
    found = repr(error.get("input"))
    shown = found if len(found) <= _SHOWN else found[:_SHOWN] + "..."
    return f"{place}: found {shown}. {error['msg']}."


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, sentence_of(error.errors()[0]))


async def _registry(_: Request, error: Exception) -> JSONResponse:
    return problem(404, str(error))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Medgen3dError)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return problem(_status_of(error), str(error), headers=headers)


def _status_of(error: Medgen3dError) -> int:
    for kind, status in ((UnknownJobError, 404), (KeyReusedError, 409), (OwnerBusyError, 429), (BusyError, 503)):
        if isinstance(error, kind):
            return status
    return 422


async def _bug(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "the service failed to answer; its log says why. Try again, or tell its administrator.")
