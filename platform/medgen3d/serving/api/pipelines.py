"""`/v1/pipelines`: what can be asked for."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as InPath

from medgen3d.serving.api.dependencies import Served, synthesizer
from medgen3d.serving.api.problems import documented
from medgen3d.serving.execution.job_planning import details_of, summary_of
from medgen3d.serving.schemas import PipelineDetails, PipelineSummary

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"], dependencies=[Depends(synthesizer)])


@router.get("", responses=documented(403, 404))
async def list_pipelines(service: Served) -> list[PipelineSummary]:
    """The pipelines that this service offers, with their labels, spacing and limits."""
    return [summary_of(loaded, service.settings) for loaded in await service.engine.pipelines()]


@router.get("/{name:path}", responses=documented(403, 404, 422))
async def show_pipeline(
    name: Annotated[str, InPath(min_length=1, max_length=200, examples=["builtin/hippocampus"])],
    service: Served,
) -> PipelineDetails:
    """One pipeline with its model card; `name` as in a request, an alias or version included."""
    return details_of(await service.engine.find(name), service.settings)
