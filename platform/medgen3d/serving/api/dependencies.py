"""Dependencies of endpoints: the service, and the caller with the scope that is needed.

The middleware has judged the token already; the scheme here only tells OpenAPI about it.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from medgen3d.serving.security.tokens import Caller, Scope
from medgen3d.serving.service import Service

_scheme = HTTPBearer(auto_error=False, description="A token of `medgen3d tokens create`.")


def service_of(request: Request) -> Service:
    """The service behind the app."""
    service: Service = request.app.state.service
    return service


def _with_scope(request: Request, scope: Scope) -> Caller:
    caller: Caller = request.state.caller
    if scope not in caller.scopes and "admin" not in caller.scopes:
        raise HTTPException(403, f"this token of {caller.owner} lacks the scope {scope!r}. Use another token.")
    return caller


def synthesizer(request: Request, _: Annotated[object, Depends(_scheme)]) -> Caller:
    """Whoever calls, with the scope `synthesize`."""
    return _with_scope(request, "synthesize")


def administrator(request: Request, _: Annotated[object, Depends(_scheme)]) -> Caller:
    """Whoever calls, with the scope `admin`."""
    return _with_scope(request, "admin")


Served = Annotated[Service, Depends(service_of)]
Synthesizer = Annotated[Caller, Depends(synthesizer)]
