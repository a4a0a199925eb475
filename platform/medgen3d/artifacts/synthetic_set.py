"""The synthetic set: a folder of drawn pairs, which synthesis writes and segmenters train on.

    images/CASE.nii.gz, labels/CASE.nii.gz    one grid per pair, in the orientation and label ids of the training data;
                                              other formats have other names (see `pair_files`)
    manifest.parquet                          a row per case, with the SHA-256 of both files; the set's identity
                                              is JSON in the file's metadata
    manifest.parts/                           rows that are not merged into the manifest yet
    dataset.json                              for Medical Segmentation Decathlon and nnU-Net v2 (see `dataset_json`)

A part is written once its cases' files are in place, so whatever the manifest lists is complete, and a run that was
killed loses only the batches in flight. The manifest and its parts are the only record of what is done. See
docs/artifacts.md.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.dataset_json import dataset_json
from medgen3d.artifacts.manifest import (
    ManifestRow,
    SyntheticSetInfo,
    latest,
    read_table,
    rows_of,
    write_rows,
    write_table,
)
from medgen3d.artifacts.pair_files import decode_pair, digest_of, encode_pair, pair_folders, pair_names
from medgen3d.artifacts.storage import Folder, Location
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.volume import Volume

MANIFEST, PARTS = "manifest.parquet", "manifest.parts"
_ATTEMPTS = 5


def existing_columns(root: Location, info: SyntheticSetInfo) -> pa.Table | None:
    """The columns of the set that `info` would continue in this folder; None in a new or empty folder.

    Raises:
        DataError: The folder holds a set of another identity, or files that are no synthetic set.
    """
    folder = Folder.of(root)
    if folder.exists(MANIFEST):
        existing, table = read_columns(folder)
        _refuse_other(folder, existing, info)
        return table
    if folder.is_a_file:
        raise DataError(f"{folder} is a file. Choose an empty or a new folder.")
    if folder.names():
        raise DataError(f"{folder} holds other files and no synthetic set. Choose an empty or a new folder.")
    return None


def open_for_writing(root: Location, info: SyntheticSetInfo) -> dict[str, ManifestRow]:
    """Begin a set, or continue one: the rows that are already there, by case id.

    Raises:
        DataError: As `existing_columns`, or the folder cannot be written.
    """
    folder = Folder.of(root)
    table = existing_columns(folder.location, info)
    try:
        folder.make(*pair_folders(info.format), PARTS)
        if table is None:
            write_rows(folder, MANIFEST, info, [])
    except OSError as error:
        raise cannot_write(folder, error) from error
    return {} if table is None else {row.case_id: row for row in rows_of(table, str(folder))}


def cannot_write(folder: Folder, error: OSError) -> DataError:
    """The sentence for a folder that refuses to be written, such as one on a disk that is full."""
    return DataError(
        f"{folder} cannot be written ({error.strerror or error}). Make room, or choose a folder that can, then run the "
        "same command again."
    )


def write_case(
    root: Location, info: SyntheticSetInfo, *, case_id: str, number: int, image: Volume, mask: Volume
) -> ManifestRow:
    """Write the files of a case; writing it again replaces them.

    Args:
        root: The set's folder, opened for writing.
        info: The set's identity.
        case_id: Name of the files.
        number: The case's number.
        image: In scanner units; rounded and clipped where `info.image_dtype` is an integer type.
        mask: Original label ids, on the grid of the image.

    Raises:
        OSError: The folder cannot be written.
    """
    if not np.array_equal(image.affine, mask.affine) or image.voxels.shape != mask.voxels.shape:
        raise ValueError(f"case {case_id}: image and mask lie on different grids")
    folder = Folder.of(root)
    images, labels = encode_pair(info, case_id, image, mask)
    for name, content in (images | labels).items():
        folder.write(name, content)
    depth, height, width = image.voxels.shape
    spacing_mm = image.spacing_mm
    return ManifestRow(
        case_id=case_id,
        number=number,
        shape=(depth, height, width),
        spacing_mm=None if np.allclose(spacing_mm, info.spacing_mm) else spacing_mm,
        status=CaseStatus.DONE,
        image_sha256=digest_of(images.values()),
        label_sha256=digest_of(labels.values()),
    )


def write_part(root: Location, info: SyntheticSetInfo, part: int, rows: list[ManifestRow]) -> None:
    """Add rows to the manifest, whole or not at all; safe from several machines for different parts.

    Args:
        root: The set's folder, opened for writing.
        info: The set's identity.
        part: Its number; where two parts hold the same case, that of the larger number counts.
        rows: Of different cases.
    """
    write_rows(Folder.of(root), f"{PARTS}/part-{part:014d}.parquet", info, rows)


def merge_parts(root: Location, *, finished: bool = True) -> None:
    """Put all parts into `manifest.parquet`, one row per case.

    Args:
        root: The set's folder.
        finished: Also describe the set in `dataset.json`, which lists every case, and remove what writers that died
            left unfinished.
    """
    folder = Folder.of(root)
    parts = _parts(folder)  # listed once: a part that comes later is not merged and must not be removed
    info, table = read_columns(folder, parts)
    write_table(folder, MANIFEST, info, table)
    if finished:
        folder.remove_unfinished(*pair_folders(info.format), PARTS)
    if finished and info.format == "nifti":
        _write_description(folder, info, _done(table))
    for name in parts:  # in their order: what a broken-off removal leaves is then the later rows, or nothing
        folder.remove(name)


def read_columns(folder: Folder, parts: list[str] | None = None) -> tuple[SyntheticSetInfo, pa.Table]:
    """The set's identity, and its rows as columns, one row per case, by number.

    Args:
        folder: The set's.
        parts: Which parts count besides the manifest; by default all.

    Raises:
        ArtifactError: The folder is no synthetic set, is damaged, or was written by another version.
    """
    for attempt in range(_ATTEMPTS):
        names = _parts(folder) if parts is None else parts
        try:
            later = [read_table(folder, name)[1] for name in names]
        except ArtifactError:
            # Merged and removed by a running job since they were listed: the manifest has their rows by now.
            if parts is None and attempt + 1 < _ATTEMPTS:
                continue
            raise
        info, table = read_table(folder, MANIFEST)
        return info, latest([table, *later])
    raise AssertionError("unreachable")


def read_manifest(root: Location) -> tuple[SyntheticSetInfo, dict[str, ManifestRow]]:
    """The set's identity, and its rows by case id; of two rows for a case the later one counts.

    Raises:
        ArtifactError: The folder is no synthetic set, is damaged, or was written by another version.
    """
    folder = Folder.of(root)
    info, table = read_columns(folder)
    return info, {row.case_id: row for row in rows_of(table, str(folder))}


class SyntheticSet:
    """A synthetic set, opened for reading; cases are read one at a time.

    Raises:
        ArtifactError: The folder is no synthetic set, is damaged, or was written by another version.
    """

    def __init__(self, root: Location) -> None:
        self.folder = Folder.of(root)
        self.root = self.folder.path()
        self.info, self.rows = read_manifest(self.folder.location)

    @property
    def case_ids(self) -> list[str]:
        """The cases that were drawn with success, by number."""
        ordered = sorted(self.rows.values(), key=lambda row: row.number)
        return [row.case_id for row in ordered if row.status == CaseStatus.DONE]

    def read(self, case_id: str) -> tuple[Volume, Volume]:
        """Image in scanner units and mask in original label ids.

        Raises:
            ArtifactError: There is no such case, or a file is missing or not what was written.
        """
        row = self.rows.get(case_id)
        if row is None or row.status != CaseStatus.DONE:
            raise ArtifactError(
                str(self.folder), f"no case {case_id!r}", "a case of its manifest", "See manifest.parquet."
            )
        damaged = next(damages(self.folder.location, self.info, row), None)
        if damaged:
            raise damaged
        return decode_pair(self.folder, self.info, row)


def damages(root: Location, info: SyntheticSetInfo, row: ManifestRow) -> Iterator[ArtifactError]:
    """What is wrong with the files of a case that the manifest lists as done: nothing, or an error per half of it."""
    folder, remedy = Folder.of(root), "Run the same `medgen3d synthesize` again: it redraws what is missing or damaged."
    halves = pair_names(info.format, row.case_id, row.shape[0])
    for names, expected in zip(halves, (row.image_sha256, row.label_sha256), strict=True):
        where = f"{folder}/{names[0]}"
        try:
            found = digest_of(folder.read(name) for name in names)
        except OSError:
            yield ArtifactError(where, "no such file", "a file that the manifest lists", remedy)
            continue
        if found != expected:
            yield ArtifactError(where, f"SHA-256 {found[:12]}…", f"{expected[:12]}… of the manifest", remedy)


def _refuse_other(folder: Folder, existing: SyntheticSetInfo, wanted: SyntheticSetInfo) -> None:
    fields = [field for field in SyntheticSetInfo.model_fields if getattr(existing, field) != getattr(wanted, field)]
    if fields:
        differences = ", ".join(
            f"{field} {getattr(existing, field)} there and {getattr(wanted, field)} now" for field in fields
        )
        raise DataError(
            f"{folder} holds a synthetic set made otherwise: {differences}. "
            "Choose another folder, or repeat the former choices to continue that set."
        )


def _done(table: pa.Table) -> list[str]:
    return [
        str(each) for each in table.filter(pa.compute.equal(table["status"], CaseStatus.DONE))["case_id"].to_pylist()
    ]


def _write_description(folder: Folder, info: SyntheticSetInfo, case_ids: list[str]) -> None:
    source = "PHANTOM DATA, no patient was imaged. " if info.phantom else ""
    content = dataset_json(
        name=f"{info.dataset_name}_synthetic",
        description=f"{source}Synthetic pairs made by medgen3d: {info.pipeline_name} version {info.pipeline_version}, "
        f"seed {info.seed}.",
        modality=info.modality,
        labels=info.written_labels.by_id,
        case_ids=case_ids,
    )
    original = dict(enumerate(info.label_table.original_ids)) if info.label_ids == "consecutive" else {}
    added = {"phantom": info.phantom} | ({"original_ids": original} if original else {})
    text = json.dumps(content | added, indent=1, ensure_ascii=False)
    folder.write("dataset.json", text.encode())


def _parts(folder: Folder) -> list[str]:
    return [f"{PARTS}/{name}" for name in folder.names(PARTS)]
