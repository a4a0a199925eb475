"""The place of a synthetic set: a folder that every machine sees, or one in an object store such as `s3://bucket/set`.

Everything goes through pyarrow's file systems, except that a local file is written by `durable_write`. In both places a
file appears whole or not at all: in an object store an upload is not seen before it is finished. Files are small enough
to be in memory as a whole.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pyarrow import ArrowInvalid
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from medgen3d.artifacts.durable_write import UNFINISHED, remove_unfinished, write_durably
from medgen3d.core.errors import DataError

Location = Path | str
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
            folder._place  # noqa: B018 - asked for, so that a wrong address is told at once
        except (ArrowInvalid, OSError) as error:
            raise DataError(f"{folder} is no address ({error}). Give s3://BUCKET/PATH or a folder.") from error
        return folder

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's file systems, network disks included."""
        return isinstance(self._place[0], LocalFileSystem)

    def path(self, name: str = "") -> Path:
        """Of a file of a folder that is local."""
        return Path(self._place[1], name)

    def __str__(self) -> str:
        """For people: without keys and options that an address may carry."""
        if "://" not in self.location:
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
            write_durably(self.path(name), content)
            return
        system, base = self._place
        with system.open_output_stream(f"{base}/{name}", compression=None) as stream:  # it would compress *.gz again
            stream.write(content)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: It cannot be read; FileNotFoundError if it is not there.
        """
        system, base = self._place
        with system.open_input_stream(f"{base}/{name}", compression=None) as stream:
            return stream.readall()

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._type_of(name) == FileType.File

    @property
    def is_a_file(self) -> bool:
        """Whether there is a file in the folder's place."""
        return self._type_of("") == FileType.File

    def names(self, folder: str = "") -> list[str]:
        """The files and folders in a folder, without what is unfinished; none if there is no such folder."""
        system, base = self._place
        selector = FileSelector(f"{base}/{folder}".rstrip("/"), allow_not_found=True)
        names = [each.base_name for each in system.get_file_info(selector)]
        return sorted(name for name in names if not name.endswith(UNFINISHED))

    def files_below(self, folder: str) -> list[str]:
        """The names of all files in a folder and below it; none if there is no such folder."""
        system, base = self._place
        found = system.get_file_info(FileSelector(f"{base}/{folder}", recursive=True, allow_not_found=True))
        names = [each.path.removeprefix(f"{base}/") for each in found if each.type == FileType.File]
        return sorted(name for name in names if not name.endswith(UNFINISHED))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is as good as removed."""
        system, base = self._place
        with suppress(FileNotFoundError):
            system.delete_file(f"{base}/{name}")

    def make(self, *folders: str) -> None:
        """Make the folder and some below it, and remove unfinished files in them that are an hour old."""
        if self.is_local:
            for folder in ("", *folders):
                self.path(folder).mkdir(parents=True, exist_ok=True)
                remove_unfinished(self.path(folder).glob, older_than_s=_ABANDONED_S)

    def remove_unfinished(self, *folders: str) -> None:
        """Remove unfinished files in some folders and below; a writer that still lives writes its file again."""
        if self.is_local:
            for folder in folders:
                remove_unfinished(self.path(folder).rglob)

    def _type_of(self, name: str) -> Any:
        system, base = self._place
        return system.get_file_info(f"{base}/{name}".rstrip("/")).type

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system and the folder's path in it."""
        system, base = FileSystem.from_uri(self.location)
        return system, base.rstrip("/")
