"""The bytes of a NIfTI file, compressed or not: memory is taken for what is there, not for what is said to be there."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from medgen3d.core.errors import VolumeFileError

SUFFIXES = (".nii.gz", ".nii")
EXPECTED = "one three-dimensional NIfTI volume"
RESTORE = "Restore or export the file again."
_GZIP = b"\x1f\x8b"
_CHUNK = 2**20


def has_nifti_name(name: str) -> bool:
    """Whether a file's name ends as NIfTI files' do, in whichever case."""
    return name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
    """A file's name without its NIfTI ending."""
    ending = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]


@contextmanager
def readable(path: Path, content: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """The uncompressed file, or content of one; every way in which a file can be damaged becomes a VolumeFileError.

    Whether it is compressed its first bytes say, and not its name.
    """
    if not has_nifti_name(path.name):
        raise VolumeFileError(str(path), "another file type", EXPECTED, "Give a .nii or .nii.gz file.")
    try:
        with content or path.open("rb") as stored:
            is_gzip = stored.read(len(_GZIP)) == _GZIP
            stored.seek(0)
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=stored)) if is_gzip else stored
    except FileNotFoundError as error:
        raise VolumeFileError(str(path), "no such file", EXPECTED, "Check the name, or restore the file.") from error
    except EOFError as error:
        raise VolumeFileError(str(path), "a truncated gzip file", EXPECTED, RESTORE) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise VolumeFileError(str(path), f"a damaged gzip file ({error})", EXPECTED, RESTORE) from error
    except OSError as error:
        raise VolumeFileError(str(path), str(error), EXPECTED, "Make the file readable.") from error


def read_bytes(file: IO[bytes], count: int) -> bytearray:
    """The next `count` bytes, or those that there are."""
    content = bytearray()
    while chunk := file.read(min(count - len(content), _CHUNK)):
        content += chunk
    return content


def skip(file: IO[bytes], count: int) -> int:
    """Leave out the next `count` bytes, or those that there are; how many they were."""
    left = count
    while chunk := file.read(min(left, _CHUNK)):
        left -= len(chunk)
    return count - left
