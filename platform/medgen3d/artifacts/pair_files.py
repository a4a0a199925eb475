"""A pair as files: NIfTI in the layout of Decathlon and nnU-Net, a Parquet file, or DICOM.

    nifti      images/CASE.nii.gz, labels/CASE.nii.gz
    parquet    pairs/CASE.parquet             one row; the whole folder is one table
    dicom      dicom/CASE/image/NNNN.dcm      a series
               dicom/CASE/segmentation.dcm    a DICOM segmentation of it

The same pair always gives the same bytes.
"""

import hashlib
import io
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medgen3d.artifacts import dicom_pair, nifti
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.mark import Content, Mark, content_hash
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable
from medgen3d.core.volume import Volume, affine_from_spacing, as_type

Format = Literal["nifti", "parquet", "dicom"]
Names = tuple[str, ...]
Contents = dict[str, bytes]
MARK_KEY = b"medgen3d.mark"
"""Of a Parquet file's schema metadata."""

_COLUMNS = pa.schema(
    [
        ("case_id", pa.string()),
        ("shape", pa.list_(pa.int32(), 3)),
        ("spacing_mm", pa.list_(pa.float64(), 3)),
        ("image_dtype", pa.string()),
        ("image", pa.large_binary()),
        ("mask_dtype", pa.string()),
        ("mask", pa.large_binary()),
    ]
)


def pair_folders(kind: Format) -> Names:
    """The folders that pairs lie in."""
    return {"nifti": ("images", "labels"), "parquet": ("pairs",), "dicom": ("dicom",)}[kind]


def pair_names(kind: Format, case_id: str, depth: int) -> tuple[Names, Names]:
    """The names of a case's files: those of the image and those of the mask; one file may hold both.

    Args:
        kind: The format.
        case_id: The case.
        depth: Its number of slices.
    """
    if kind == "parquet":
        both = (f"pairs/{case_id}.parquet",)
        return both, both
    if kind == "dicom":
        slices = tuple(f"dicom/{case_id}/image/{place:04d}.dcm" for place in range(depth))
        return slices, (f"dicom/{case_id}/segmentation.dcm",)
    return (f"images/{case_id}.nii.gz",), (f"labels/{case_id}.nii.gz",)


def encode_pair(info: SyntheticSetInfo, case_id: str, image: Volume, mask: Volume) -> tuple[Contents, Contents]:
    """The files of a pair, {name: content}: those of the image and those of the mask.

    Args:
        info: The set's identity, which names format, voxel types and orientation.
        case_id: The case.
        image: In scanner units.
        mask: Original label ids, on the same grid.
    """
    images, labels = pair_names(info.format, case_id, image.voxels.shape[0])
    if info.format == "parquet":
        both = {images[0]: _encode_parquet(info, case_id, image, mask)}
        return both, both
    if info.format == "dicom":
        slices, segmentation = dicom_pair.encode(info, case_id, image, mask)
        return dict(zip(images, slices, strict=True)), {labels[0]: segmentation}
    written = _renumbered(mask, info.label_table, info.written_labels)
    halves: tuple[tuple[str, Content, Volume, Any], ...] = (
        (images[0], "image", image, info.image_dtype),
        (labels[0], "mask", written, info.written_labels.dtype),
    )
    encoded = []
    for name, content, volume, dtype in halves:
        mark = Mark.of(info, case_id, content, content_hash(as_type(volume.voxels, dtype)), volume.affine)
        encoded.append({name: nifti.encode(volume, info.axis_codes, dtype, mark)})
    return encoded[0], encoded[1]


def decode_pair(folder: Folder, info: SyntheticSetInfo, row: ManifestRow) -> tuple[Volume, Volume]:
    """Image in scanner units and mask in original label ids of a case that was written.

    Raises:
        ArtifactError: A file is damaged.
        VolumeFileError: A NIfTI or DICOM file is damaged.
        OSError: A file is missing.
    """
    images, labels = pair_names(info.format, row.case_id, row.shape[0])
    if info.format == "parquet":
        image, mask = _decode_parquet(folder, images[0])
        return image, _renumbered(mask, info.written_labels, info.label_table)
    if info.format == "dicom":
        return dicom_pair.decode(folder, info, images, labels[0])
    halves = (nifti.decode(folder.read(names[0]), f"{folder}/{names[0]}") for names in (images, labels))
    image, mask = (half.volume for half in halves)
    return image, _renumbered(mask, info.written_labels, info.label_table)


def _renumbered(mask: Volume, before: LabelTable, after: LabelTable) -> Volume:
    """The mask with other ids of the same labels.

    Raises:
        DataError: It holds an id that is none of the labels.
    """
    if before == after:
        return mask
    contiguous = before.to_contiguous(as_type(mask.voxels, before.dtype))  # type: ignore[arg-type]
    return Volume(voxels=after.to_original(contiguous), affine=mask.affine)


def decode_parquet(content: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Voxels of image and mask as they stand in a Parquet file of ours.

    Raises:
        ValueError, KeyError, TypeError, IndexError: It holds something else.
    """
    row = pq.read_table(io.BytesIO(content), schema=_COLUMNS).to_pylist()[0]
    image, mask = (_array(row[half], row[f"{half}_dtype"], row["shape"]) for half in ("image", "mask"))
    return image, mask


def digest_of(contents: Iterable[bytes]) -> str:
    """SHA-256 of the one file of half a pair; of several, that of the text of their SHA-256, in their order."""
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _encode_parquet(info: SyntheticSetInfo, case_id: str, image: Volume, mask: Volume) -> bytes:
    voxels = as_type(image.voxels, info.image_dtype)
    labels = as_type(_renumbered(mask, info.label_table, info.written_labels).voxels, info.written_labels.dtype)
    row = {
        "case_id": case_id,
        "shape": list(voxels.shape),
        "spacing_mm": list(image.spacing_mm),
        "image_dtype": voxels.dtype.name,
        "image": _little(voxels),
        "mask_dtype": labels.dtype.name,
        "mask": _little(labels),
    }
    content = io.BytesIO()
    mark = Mark.of(info, case_id, "pair", content_hash(voxels, labels))
    table = pa.Table.from_pylist([row], schema=_COLUMNS).replace_schema_metadata({MARK_KEY: mark.text.encode()})
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def _decode_parquet(folder: Folder, name: str) -> tuple[Volume, Volume]:
    try:
        row = pq.read_table(io.BytesIO(folder.read(name)), schema=_COLUMNS).to_pylist()[0]
        affine = affine_from_spacing(tuple(row["spacing_mm"]))
        image, mask = (
            Volume(voxels=_array(row[half], row[f"{half}_dtype"], row["shape"]), affine=affine)
            for half in ("image", "mask")
        )
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, IndexError) as error:
        remedy = "Run the same `medgen3d synthesize` again."
        raise ArtifactError(
            f"{folder}/{name}", f"no readable pair ({error})", "a Parquet file with one", remedy
        ) from error
    return image, mask


def _little(array: np.ndarray[Any, Any]) -> bytes:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def _array(content: bytes, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)
