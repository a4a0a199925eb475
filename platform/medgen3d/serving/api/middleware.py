"""The middleware that every request passes first: token, size of the body, audit log, metrics.

It stands before routing, so that nothing is parsed for a client without a token, and that a path which somebody adds is
closed unless it is listed as open.
"""

import asyncio
import contextlib
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medgen3d.serving.api.problems import problem
from medgen3d.serving.security.tokens import Caller
from medgen3d.serving.service import Service

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
OPEN_PREFIX = "/page/"
"""Files of the web page; they hold nothing of anybody."""
MAX_JSON_BYTES = 2**16
"""Body of any request that brings no mask: more is never parsed in the event loop, and no sound request is longer."""
_FORM_BYTES = 2**16  # of a multipart body, besides the mask
BODY_WITHIN_S = 120.0
_DISCARD_BYTES = 2**26
_DISCARD_S = 5.0
_BEARER = "bearer "


def media_type(headers: Headers) -> str:
    """Of a body, in small letters and without its parameters; empty if the request names none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class RequestMiddleware:
    """ASGI middleware. The caller is in `request.state.caller` afterwards."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        state = scope.setdefault("state", {})
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        headers = Headers(scope=scope)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, path, state, message["status"], time.monotonic() - began, is_open=is_open)
            await send(message)

        if not is_open:
            state["caller"] = self._caller(headers)
            if state["caller"] is None:
                refusal = problem(
                    401,
                    "found no valid token, expected the header `Authorization: Bearer TOKEN`. Ask the service's "
                    "administrator for a token.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, answer)
                return
        limit = MAX_JSON_BYTES
        if path == "/v1/images" or (path == "/v1/jobs" and media_type(headers) == "multipart/form-data"):
            limit = self._service.settings.max_upload_bytes + _FORM_BYTES
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await _discard(receive)
            await problem(413, _sentence(limit), headers={"Connection": "close"})(scope, receive, answer)
            return
        try:
            await self._app(scope, _counted(receive, limit), answer)
        except Exception:  # answered by the app's outermost layer, with 500
            self._note(scope, path, state, 500, time.monotonic() - began, is_open=is_open)
            raise

    def _caller(self, headers: Headers) -> Caller | None:
        given = headers.get("authorization", "")
        if given[: len(_BEARER)].lower() != _BEARER:
            return None
        return self._service.tokens.caller(given[len(_BEARER) :].strip())

    def _note(
        self, scope: Scope, path: str, state: MutableMapping[str, Any], status: int, seconds: float, *, is_open: bool
    ) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.answered(scope["method"], route, status, seconds)
        if is_open:
            return
        caller: Caller | None = state.get("caller")
        client = scope.get("client")
        self._service.audit.record(
            owner=caller.owner if caller else None,
            token=caller.token_id if caller else None,
            method=scope["method"],
            path=path,
            status=status,
            job=state.get("job"),
            pipeline=state.get("pipeline"),
            client=client[0] if client else None,
            seconds=round(seconds, 4),
        )


def _counted(receive: Receive, limit: int) -> Receive:
    """The same body, refused as soon as more of it has come than may, or once it has taken too long."""
    num_bytes = 0
    is_whole = False
    until = time.monotonic() + BODY_WITHIN_S

    async def counted() -> Message:
        nonlocal num_bytes, is_whole
        if is_whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            sentence = f"the body did not come within {BODY_WITHIN_S:g} s. Send it again."
            raise HTTPException(408, sentence, {"Connection": "close"}) from None
        is_whole = not message.get("more_body", False)
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            if message.get("more_body"):
                await _discard(receive)
            raise HTTPException(413, _sentence(limit), {"Connection": "close"})
        return message

    return counted


async def _discard(receive: Receive) -> None:
    """Let a client finish what it is sending, within reason: one that still sends does not read its refusal."""
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while num_bytes < _DISCARD_BYTES:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def _sentence(limit: int) -> str:
    return f"found a body that is too large, expected at most {limit} bytes. Send less."
