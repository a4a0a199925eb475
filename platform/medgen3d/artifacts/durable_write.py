"""Durable writes on a file system: a file appears at once and, when the call returns, survives a power cut.

The content goes to a temporary name in the same folder, is flushed to the disk, and gets its name by a rename, which is
flushed too. Neither pyarrow nor a plain `open` does so.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""The end of a temporary name."""


def write_durably(path: Path, content: bytes) -> None:
    """Write a file in place of an older one; its folder is made if it is missing.

    Raises:
        OSError: It cannot be written; an older file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _was_written(path, content):
        pass  # `remove_unfinished` was faster than the rename
    _flush_folder(path.parent)


def remove_unfinished(find: Callable[[str], Iterable[Path]], older_than_s: float = 0.0) -> None:
    """Remove temporary files that nobody has written to for some time; a writer that lives writes its file again.

    Args:
        find: `glob` or `rglob` of a folder.
        older_than_s: Time since the last write [s].
    """
    for path in find(f".*{UNFINISHED}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


def _was_written(path: Path, content: bytes) -> bool:
    """False: the temporary file was removed before it had its name."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")  # a name for this writer alone
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return _was_named(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _was_named(unfinished: Path, path: Path) -> bool:
    try:
        unfinished.replace(path)
    except FileNotFoundError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """Make a new name last; what cannot be asked of a file system is not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
