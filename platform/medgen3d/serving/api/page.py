"""The web page: a few static files without secrets, so they need no token. What the page does goes through the API.

Every file is read once and known by its name; a path in a request is never one on the disk.
"""

from pathlib import Path

from fastapi import APIRouter, Response

_WEB = Path(__file__).parents[1] / "web"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",  # no text can become markup, whatever a model card or a label says
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "Cache-Control": "no-cache",  # after an update, no old module beside a new one
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


router = APIRouter(include_in_schema=False)


class _Answer:
    """Answers with one file."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._media_type = _MEDIA_TYPES[path.suffix]

    async def __call__(self) -> Response:
        return Response(self._content, media_type=self._media_type, headers=HEADERS)


for _path in sorted(_WEB.iterdir()):
    router.add_api_route("/" if _path.name == "index.html" else f"/page/{_path.name}", _Answer(_path), methods=["GET"])
