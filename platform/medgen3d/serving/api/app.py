"""The app: endpoints over a service. Whoever starts it decides which engine draws."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from medgen3d import __version__
from medgen3d.serving.api import health, jobs, page, pairs, pipelines
from medgen3d.serving.api.middleware import RequestMiddleware
from medgen3d.serving.api.problems import explain_errors
from medgen3d.serving.service import Service

_DESCRIPTION = "Synthetic 3D medical images with their label masks, on demand. Every request but health needs a token."


def make_app(service: Service) -> FastAPI:
    """The endpoints of a service. The app starts the service's runner and, at its end, gives its jobs back.

    Args:
        service: Of `open_service`; also found as `app.state.service`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.runner.start()
        try:
            yield
        finally:
            await service.runner.stop()
            service.database.close()

    # No pages of the framework: they come from a CDN, and nothing here needs the network.
    app = FastAPI(
        title="medgen3d",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for router in (jobs.router, pairs.router, pipelines.router, health.router, page.router):
        app.include_router(router)
    explain_errors(app)
    app.add_middleware(RequestMiddleware, service=service)
    return app
