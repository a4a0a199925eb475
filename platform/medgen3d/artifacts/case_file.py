"""A prepared case in a file of its own, of which slabs and crops along any view are read alone.

It is an Arrow file with one record batch per chunk of CHUNK voxels, in z, y, x order; `image` and `mask` are columns,
each compressed by itself. So a window of slices of the mask costs the chunks that it touches of the mask and no more,
here and in an object store. The file is mapped into memory: what is read often stays in the page cache of the machine,
which all processes share and the operating system bounds (docs/decisions/0018).
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medgen3d.artifacts.durable_write import write_durably
from medgen3d.core.errors import ArtifactError

CHUNK = (16, 64, 64)
"""Voxels along (z, y, x) of a chunk; those at the ends of a volume are smaller."""
COMPRESSION = "lz4"
_DESCRIPTION, _DESCRIPTION_SHA256 = b"medgen3d", b"medgen3d.sha256"
_COLUMNS = ("image", "mask")
_ARROW_TYPES = {"float16": pa.float16(), "uint8": pa.uint8(), "uint16": pa.uint16()}
_REMEDY = "Run ingest again."
Shape = tuple[int, int, int]


def write_case_file(path: Path, image: NDArray[np.floating], mask: NDArray[np.integer], facts: dict[str, Any]) -> None:
    """Write a case; whole or not at all.

    Args:
        path: Of the file.
        image: [D, H, W], kept as float16.
        mask: uint8 or uint16 [D, H, W].
        facts: What else is known of the case; anything that JSON can hold.

    Raises:
        ValueError: Image and mask differ in shape.
        OSError: It cannot be written.
    """
    if image.shape != mask.shape:
        raise ValueError(f"image {image.shape} and mask {mask.shape} differ in shape")
    arrays = {"image": image.astype("<f2"), "mask": mask.astype(mask.dtype.newbyteorder("<"))}
    fields = [pa.field(name, _ARROW_TYPES[array.dtype.name]) for name, array in arrays.items()]
    chunks = {name: [_flat(array[chunk]) for chunk in _chunks(mask.shape, CHUNK)] for name, array in arrays.items()}
    sums = {name: [zlib.crc32(values.tobytes()) for values in parts] for name, parts in chunks.items()}
    whole = {name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for name, array in arrays.items()}
    known = json.dumps({"shape": mask.shape, "chunk": CHUNK, "crc32": sums, "sha256": whole, "facts": facts}).encode()
    described = {_DESCRIPTION: known, _DESCRIPTION_SHA256: hashlib.sha256(known).hexdigest()}
    schema = pa.schema(fields, metadata=described)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=COMPRESSION)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for columns in zip(*chunks.values(), strict=True):
            writer.write_batch(pa.record_batch([pa.array(values) for values in columns], schema=schema))
    write_durably(path, sink.getvalue())


class CaseFile:
    """A prepared case on disk.

    shape: (D, H, W).
    facts: As they were written.
    sha256: Of all voxels of `image` (as float16) and of `mask`, in z, y, x order, as they were written.
    image: float32 [D, H, W] in [-1, 1], read when it is sliced.
    mask: uint8 or uint16 [D, H, W], read when it is sliced.

    Raises:
        ArtifactError: The file is missing, damaged, or no such case.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            source = pa.memory_map(str(path))
            columns = {
                name: pa.ipc.open_file(
                    source, options=pa.ipc.IpcReadOptions(included_fields=[number], use_threads=False)
                )
                for number, name in enumerate(_COLUMNS)
            }
            known = json.loads(_description(columns["mask"].schema.metadata or {}))
            self.shape, chunk = tuple(known["shape"]), tuple(known["chunk"])
            self.facts: dict[str, Any] = known["facts"]
            self.sha256: dict[str, str] = known["sha256"]
            self._sums: dict[str, list[int]] = known["crc32"]
            mask_type = np.dtype({"uint8": "u1", "uint16": "<u2"}[str(columns["mask"].schema.field(0).type)])
            wanted = len(list(_chunks(self.shape, chunk)))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else str(error).split("\n")[0]
            raise ArtifactError(str(path), found, "a prepared case", _REMEDY) from error
        for name, reader in columns.items():
            if reader.num_record_batches != wanted:
                found = f"{reader.num_record_batches} chunks"
                raise ArtifactError(str(path), found, f"{wanted} chunks of {name}", _REMEDY)
        self.image = StoredArray(path, columns["image"], self.shape, chunk, np.dtype("<f2"), np.dtype(np.float32))
        self.mask = StoredArray(path, columns["mask"], self.shape, chunk, mask_type, mask_type)

    def check(self) -> None:
        """Read every voxel and compare checksums.

        Raises:
            ArtifactError: A chunk is damaged.
        """
        for name, array in (("image", self.image), ("mask", self.mask)):
            for number, wanted in enumerate(self._sums[name]):
                if zlib.crc32(array.chunk_values(number).tobytes()) != wanted:
                    found = f"a damaged chunk {number} of the {name}"
                    raise ArtifactError(str(self.path), found, "voxels as they were written", _REMEDY)


def _description(metadata: dict[bytes, bytes]) -> bytes:
    """The JSON that describes a case, as it was written: it is part of the set's identity, as the voxels are.

    Raises:
        ValueError: It is missing or damaged.
    """
    known = metadata.get(_DESCRIPTION, b"")
    if metadata.get(_DESCRIPTION_SHA256, b"").decode(errors="replace") != hashlib.sha256(known).hexdigest():
        raise ValueError("a description that is missing, damaged or of an earlier version")
    return known


@dataclass(frozen=True, slots=True)
class StoredArray:
    """A volume on disk that reads what it is sliced by: `array[3:9, :, 40:80]`, numbers allowed, steps not.

    shape: (D, H, W).
    dtype: Of what slicing gives.
    """

    path: Path
    reader: Any
    shape: Shape
    chunk: Shape
    stored: np.dtype[Any]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """The voxels of a box, as an array of its own.

        Raises:
            ArtifactError: A chunk is damaged.
        """
        box, numbers = box_of_key(key, self.shape)
        result = np.empty([stop - start for start, stop in box], self.dtype)
        touched = [range(start // size, -(-stop // size)) for (start, stop), size in zip(box, self.chunk, strict=True)]
        for place in product(*touched):
            source, target = [], []
            for (start, stop), size, number in zip(box, self.chunk, place, strict=True):
                first, last = max(start, number * size), min(stop, (number + 1) * size)
                source.append(slice(first - number * size, last - number * size))
                target.append(slice(first - start, last - start))
            result[tuple(target)] = self._read(place)[tuple(source)]
        taken: NDArray[Any] = result[numbers]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _read(self, place: tuple[int, ...]) -> NDArray[Any]:
        counts = [-(-side // size) for side, size in zip(self.shape, self.chunk, strict=True)]
        number = (place[0] * counts[1] + place[1]) * counts[2] + place[2]
        sizes = [min(size, side - each * size) for each, size, side in zip(place, self.chunk, self.shape, strict=True)]
        values = self.chunk_values(number)
        if len(values) != math.prod(sizes):
            raise ArtifactError(str(self.path), f"{len(values)} voxels", f"{sizes} in chunk {number}", _REMEDY)
        return values.reshape(sizes)

    def chunk_values(self, number: int) -> NDArray[Any]:
        """The voxels of a chunk as they are stored, flat."""
        try:
            column = self.reader.get_batch(number).column(0)
            return np.frombuffer(column.buffers()[1], self.stored, count=len(column))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ArtifactError(str(self.path), str(error).split("\n")[0], f"chunk {number}", _REMEDY) from error


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).ravel()


def _chunks(shape: Shape, chunk: Shape) -> Iterator[tuple[slice, ...]]:
    starts = (range(0, side, size) for side, size in zip(shape, chunk, strict=True))
    for corner in product(*starts):
        yield tuple(slice(start, start + size) for start, size in zip(corner, chunk, strict=True))


def box_of_key(key: Any, shape: Shape) -> tuple[list[tuple[int, int]], tuple[Any, ...]]:
    """What a volume of this shape is sliced by, as (start, stop) along each axis.

    Returns:
        The box, and what its voxels are indexed by, so that axes for which a number was given are gone.
    """
    keys = key if isinstance(key, tuple) else (key,)
    keys = (*keys, *[slice(None)] * (3 - len(keys)))
    box = [_bounds(each, side) for each, side in zip(keys, shape, strict=True)]
    return box, tuple(0 if isinstance(each, int | np.integer) else slice(None) for each in keys)


def _bounds(key: Any, side: int) -> tuple[int, int]:
    if isinstance(key, int | np.integer):
        first = range(side)[int(key)]
        return first, first + 1
    start, stop, step = key.indices(side)
    if step != 1:
        raise IndexError(f"stored volumes are read in steps of 1, got {step}")
    return start, max(start, stop)
