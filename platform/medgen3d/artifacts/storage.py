"""Where a synthetic set lies: a folder that every machine sees, or a place in an object store such as `s3://bucket/set`.

Files are small enough to be in memory as a whole, and appear whole or not at all: on a file system through a temporary
name in the same folder, which is on disk before it is renamed; in an object store because an upload is not seen before
it is finished.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pyarrow import ArrowInvalid
from pyarrow.fs import FileSelector, FileSystem, FileType

from medgen3d.core.errors import DataError

Location = Path | str
_UNFINISHED = ".unfinished"
_ABANDONED_S = 3600.0  # an unfinished file so old belongs to nobody who still runs


@dataclass(frozen=True)
class Folder:
    """A place for files, known by names such as `images/a.nii.gz`; it can be pickled.

    location: An absolute path, or an address that pyarrow's file systems understand.
    """

    location: str

    @classmethod
    def of(cls, location: Location) -> Self:
        """The folder at a path, which may be relative, or at an address.

        Raises:
            DataError: The address is not one that pyarrow knows.
        """
        if "://" not in str(location):
            return cls(str(Path(location).absolute()))  # workers run in folders of their own
        folder = cls(str(location))
        try:
            folder._remote  # noqa: B018 - asked for, so that a wrong address is told at once
        except (ArrowInvalid, OSError) as error:
            raise DataError(f"{folder} is no address ({error}). Give s3://BUCKET/PATH or a folder.") from error
        return folder

    @property
    def is_local(self) -> bool:
        return "://" not in self.location

    def path(self, name: str = "") -> Path:
        """Of a file of a folder that is on this machine's file systems."""
        return Path(self.location, name)

    def __str__(self) -> str:
        """For people: without keys and options that an address may carry."""
        if self.is_local:
            return self.location
        address = urlsplit(self.location)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location}  # connections stay behind

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all, in place of an older one; on return it survives a power cut.

        Raises:
            OSError: It cannot be written; an older file is still there.
        """
        if self.is_local:
            _write_local(self.path(name), content)
        else:
            system, base = self._remote
            with system.open_output_stream(f"{base}/{name}") as stream:
                stream.write(content)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: It cannot be read; FileNotFoundError if it is not there.
        """
        if self.is_local:
            return self.path(name).read_bytes()
        system, base = self._remote
        with system.open_input_stream(f"{base}/{name}") as stream:
            return stream.readall()

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if self.is_local:
            return self.path(name).is_file()
        system, base = self._remote
        return system.get_file_info(f"{base}/{name}").type == FileType.File

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, without what is unfinished; none if there is no such folder."""
        if self.is_local:
            path = self.path(folder)
            found = [each.name for each in path.iterdir()] if path.is_dir() else []
        else:
            system, base = self._remote
            place = f"{base}/{folder}".rstrip("/")
            found = [each.base_name for each in system.get_file_info(FileSelector(place, allow_not_found=True))]
        return sorted(name for name in found if not name.endswith(_UNFINISHED))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is as good as removed."""
        with suppress(FileNotFoundError):
            if self.is_local:
                self.path(name).unlink()
            else:
                system, base = self._remote
                system.delete_file(f"{base}/{name}")

    def tidy(self, *folders: str) -> None:
        """Make the folder and some below it, and remove what a run that was killed long ago left unfinished in them."""
        if self.is_local:
            for folder in ("", *folders):
                self.path(folder).mkdir(parents=True, exist_ok=True)
                for path in self.path(folder).glob(f".*{_UNFINISHED}"):
                    with suppress(FileNotFoundError):
                        if time.time() - path.stat().st_mtime > _ABANDONED_S:
                            path.unlink()

    def sweep(self, *folders: str) -> None:
        """Remove what is unfinished; whoever still writes it begins again."""
        if self.is_local:
            for folder in folders:
                for path in self.path(folder).rglob(f".*{_UNFINISHED}"):
                    path.unlink(missing_ok=True)

    @contextmanager
    def at_hand(self, name: str) -> Iterator[Path]:
        """A file as one on this machine: itself, or a copy for as long as the block lasts."""
        if self.is_local:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(name).name)
            copy.write_bytes(self.read(name))
            yield copy

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """The file system and the folder's path in it."""
        system, base = FileSystem.from_uri(self.location)
        return system, base.rstrip("/")


def _unfinished(path: Path) -> Path:
    """A name of its own for each writer of a file."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{_UNFINISHED}")


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _was_written(path, content):
        pass  # it was swept away before it had its name
    _sync_folder(path.parent)


def _was_written(path: Path, content: bytes) -> bool:
    unfinished = _unfinished(path)
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


def _sync_folder(folder: Path) -> None:
    """Make a new name last; what cannot be asked of a file system is not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
