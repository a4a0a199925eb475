"""The audit log: who asked for what, and what came of it, as one line of JSON per request. It never holds a token."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

_MAX_TEXT = 300


class AuditLog:
    """A file to which each request adds a line.

    The file is opened for each line, so that it may be moved away at any time, and a line is one write, so that the
    lines of several processes never mix.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def record(self, **facts: str | int | float | None) -> None:
        """Add a line; long texts are cut, and facts that are None left out."""
        line: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line |= {
            name: fact[:_MAX_TEXT] if isinstance(fact, str) else fact
            for name, fact in facts.items()
            if fact is not None
        }
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)
