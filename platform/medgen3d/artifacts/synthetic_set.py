"""The synthetic set: what synthesis writes and segmenters train on.

    images/CASE.nii.gz, labels/CASE.nii.gz    one grid per pair, in the orientation and label ids of the training data
    manifest.parquet                          a row per case, with the SHA-256 of both files; what the set is stands as
                                              JSON in the file's metadata
    manifest.parts/                           rows that an interrupted run has not merged yet
    dataset.json                              for Medical Segmentation Decathlon and nnU-Net v2 (see `dataset_json`)

A part is written once its cases' files are in place, so whatever the manifest lists is complete, and a run that was
killed loses only the batches in flight. See docs/artifacts.md.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medgen3d.artifacts import nifti
from medgen3d.artifacts.dataset_json import dataset_json
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo, read_rows, write_rows
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.core.volume import Volume


def existing_rows(root: Path, info: SyntheticSetInfo) -> dict[str, ManifestRow]:
    """The rows, by case id, of the set that `info` would continue in this folder; none in a new or empty folder.

    Raises:
        DataError: The folder holds a set of another identity, or files that are no synthetic set.
    """
    if (root / "manifest.parquet").exists():
        existing, rows = read_manifest(root)
        _refuse_other(root, existing, info)
        return rows
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} holds other files and no synthetic set. Choose an empty or a new folder.")
    return {}


def open_for_writing(root: Path, info: SyntheticSetInfo) -> dict[str, ManifestRow]:
    """Begin a set, or continue one: the rows that are already there, by case id.

    Raises:
        DataError: As `existing_rows`, or the folder cannot be written.
    """
    rows = existing_rows(root, info)
    try:
        for folder in ("images", "labels", "manifest.parts"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        if not (root / "manifest.parquet").exists():
            write_rows(root / "manifest.parquet", info, [])
    except OSError as error:
        raise DataError(f"{root} cannot be written ({error.strerror}). Choose a folder that can.") from error
    return rows


def write_case(
    root: Path, info: SyntheticSetInfo, *, case_id: str, number: int, image: Volume, mask: Volume
) -> ManifestRow:
    """Write the two files of a case; writing it again replaces them.

    Args:
        root: The set's folder, opened for writing.
        info: The set's identity.
        case_id: Name of the files.
        number: The case's number.
        image: In scanner units; rounded and clipped where `info.image_dtype` is an integer type.
        mask: Original label ids, on the grid of the image.
    """
    if not np.array_equal(image.affine, mask.affine) or image.voxels.shape != mask.voxels.shape:
        raise ValueError(f"case {case_id}: image and mask lie on different grids")
    image_path, label_path = _paths(root, case_id)
    nifti.write(image_path, image, info.axis_codes, info.image_dtype)
    nifti.write(label_path, mask, info.axis_codes, info.label_table.dtype)
    depth, height, width = image.voxels.shape
    return ManifestRow(
        case_id=case_id,
        number=number,
        shape=(depth, height, width),
        status="done",
        image_sha256=sha256_of(image_path),
        label_sha256=sha256_of(label_path),
    )


def write_part(root: Path, info: SyntheticSetInfo, part: int, rows: list[ManifestRow]) -> None:
    """Add rows to the manifest, whole or not at all; safe from several machines for different parts."""
    write_rows(root / "manifest.parts" / f"part-{part:06d}.parquet", info, rows)


def merge_parts(root: Path) -> None:
    """Put all parts into `manifest.parquet`, one row per case id, and describe the set in `dataset.json`."""
    parts = _parts(root)  # listed once: a part that comes later is not merged and must not be removed
    info, rows = read_manifest(root)
    ordered = sorted(rows.values(), key=lambda row: row.number)
    write_rows(root / "manifest.parquet", info, ordered)
    _write_description(root, info, [row.case_id for row in ordered if row.status == "done"])
    for path in parts:
        path.unlink()


def read_manifest(root: Path) -> tuple[SyntheticSetInfo, dict[str, ManifestRow]]:
    """The set's identity, and its rows by case id; of two rows for a case the later one counts.

    Raises:
        ArtifactError: The folder is no synthetic set, is damaged, or was written by another version.
    """
    info, found = read_rows(Path(root) / "manifest.parquet")
    rows = {row.case_id: row for row in found}
    for path in _parts(Path(root)):
        rows |= {row.case_id: row for row in read_rows(path)[1]}
    return info, rows


class SyntheticSet:
    """A synthetic set on disk, opened for reading; cases are read one at a time.

    Raises:
        ArtifactError: The folder is no synthetic set, is damaged, or was written by another version.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.info, self.rows = read_manifest(self.root)

    @property
    def case_ids(self) -> list[str]:
        """The cases that were drawn with success, by number."""
        ordered = sorted(self.rows.values(), key=lambda row: row.number)
        return [row.case_id for row in ordered if row.status == "done"]

    def read(self, case_id: str) -> tuple[Volume, Volume]:
        """Image in scanner units and mask in original label ids.

        Raises:
            ArtifactError: There is no such case, or a file is missing or not what was written.
        """
        if case_id not in self.case_ids:
            raise ArtifactError(
                str(self.root), f"no case {case_id!r}", "a case of its manifest", "See manifest.parquet."
            )
        damaged = next(damages(self.root, self.rows[case_id]), None)
        if damaged:
            raise damaged
        image, mask = (nifti.read(path).volume for path in _paths(self.root, case_id))
        return image, mask


def damages(root: Path, row: ManifestRow) -> Iterator[ArtifactError]:
    """What is wrong with the files of a case that the manifest lists as done: nothing, or one error per file."""
    remedy = "Run the same `medgen3d synthesize` again: it redraws what is missing or damaged."
    for path, expected in zip(_paths(root, row.case_id), (row.image_sha256, row.label_sha256), strict=True):
        if not path.is_file():
            yield ArtifactError(str(path), "no such file", "a file that the manifest lists", remedy)
        elif (found := sha256_of(path)) != expected:
            yield ArtifactError(str(path), f"SHA-256 {found[:12]}…", f"{expected[:12]}… of the manifest", remedy)


def _refuse_other(root: Path, existing: SyntheticSetInfo, wanted: SyntheticSetInfo) -> None:
    fields = [field for field in SyntheticSetInfo.model_fields if getattr(existing, field) != getattr(wanted, field)]
    if fields:
        differences = ", ".join(
            f"{field} {getattr(existing, field)} there and {getattr(wanted, field)} now" for field in fields
        )
        raise DataError(
            f"{root} holds a synthetic set made otherwise: {differences}. "
            "Choose another folder, or repeat the former choices to continue that set."
        )


def _write_description(root: Path, info: SyntheticSetInfo, case_ids: list[str]) -> None:
    source = "PHANTOM DATA, no patient was imaged. " if info.phantom else ""
    content = dataset_json(
        name=f"{info.dataset_name}_synthetic",
        description=f"{source}Synthetic pairs made by medgen3d: {info.pipeline_name} version {info.pipeline_version}, "
        f"seed {info.seed}.",
        modality=info.modality,
        labels=info.labels,
        case_ids=case_ids,
    )
    unfinished = root / "dataset.json.unfinished"
    unfinished.write_text(
        json.dumps(content | {"phantom": info.phantom}, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    unfinished.replace(root / "dataset.json")


def _parts(root: Path) -> list[Path]:
    return sorted((root / "manifest.parts").glob("part-*.parquet"))


def _paths(root: Path, case_id: str) -> tuple[Path, Path]:
    return root / "images" / f"{case_id}.nii.gz", root / "labels" / f"{case_id}.nii.gz"
