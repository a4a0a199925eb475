"""The audit log: who asked for what, and what came of it, as one line of JSON per request. It never holds a token."""

import fcntl
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

_MAX_TEXT = 300
MAX_BYTES = 64 * 2**20
"""Size from which the file is put aside, as `audit.jsonl.1` and so on."""
NUM_KEPT = 5
"""Files that are put aside; the oldest one goes."""
STRANGERS_PER_MINUTE = 30
"""Lines of requests without a valid token; the rest is counted, so that nobody can fill the log without one."""


class AuditLog:
    """A file to which each request adds a line.

    The file is opened for each line, so that it may be moved away at any time, and a line is one write, so that the
    lines of several processes never mix.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._minute, self._strangers, self._left_out = 0, 0, 0

    def record(self, *, owner: str | None, **facts: str | int | float | None) -> None:
        """Add a line; long texts are cut, and facts that are None left out.

        Args:
            owner: Whose token it was; None: there was no valid one.
            facts: What else is known of the request.
        """
        line: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if owner is None and not self._is_told():
            return
        if self._left_out:
            line["left_out_without_token"], self._left_out = self._left_out, 0
        line |= {
            name: fact[:_MAX_TEXT] if isinstance(fact, str) else fact
            for name, fact in ({"owner": owner} | facts).items()
            if fact is not None
        }
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
            is_full = os.fstat(handle).st_size >= MAX_BYTES
        finally:
            os.close(handle)
        if is_full:
            self._put_aside()

    def _is_told(self) -> bool:
        """Whether one more request without a token is told in this minute."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._strangers = minute, 0
        self._strangers += 1
        if self._strangers <= STRANGERS_PER_MINUTE:
            return True
        self._left_out += 1
        return False

    def _put_aside(self) -> None:
        """One process at a time, and only if none has done so meanwhile."""
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.exists() and self.path.stat().st_size >= MAX_BYTES:
                for number in range(NUM_KEPT - 1, 0, -1):
                    older = self.path.with_name(f"{self.path.name}.{number}")
                    if older.exists():
                        older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
