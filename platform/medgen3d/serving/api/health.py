"""`/healthz`, `/readyz`, `/metrics`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from medgen3d.serving.api.dependencies import Served, administrator
from medgen3d.serving.api.problems import documented, problem

router = APIRouter(tags=["health"])
_ANSWER_WITHIN_S = 5.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=dict[str, str], responses={503: documented(503)[503]})
async def readyz(service: Served) -> Any:
    """Whether jobs can be accepted: the database answers and every offered pipeline is there."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            await asyncio.to_thread(service.store.counts)
            await service.engine.pipelines()
    except Exception as error:  # whatever it is, its details are not for everybody
        reason = "does not answer in time" if isinstance(error, TimeoutError) else f"fails ({type(error).__name__})"
        return problem(503, f"the database or the engine {reason}.", headers={"Retry-After": "5"})
    return {"status": "ready"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(403)},
    dependencies=[Depends(administrator)],
)
async def metrics(service: Served) -> Response:
    """Figures in Prometheus' text format; needs the scope `admin`."""
    text = await asyncio.to_thread(service.metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
