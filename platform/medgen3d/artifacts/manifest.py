"""The manifest of a synthetic set: a Parquet table with a row per case, whose metadata hold the identity of the set."""

import io
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable

LabelIds = Literal["original", "consecutive"]
SCHEMA_VERSION = 1
_INFO_KEY = b"medgen3d.synthetic_set"
_COLUMNS = pa.schema(
    [
        ("case_id", pa.string()),
        ("number", pa.int64()),
        ("seed", pa.int64()),
        ("shape", pa.list_(pa.int32(), 3)),
        ("spacing_mm", pa.list_(pa.float64())),  # null where it is the set's; a list of fixed length could not be
        ("pipeline_name", pa.string()),
        ("pipeline_version", pa.int64()),
        ("config_hash", pa.string()),
        ("phantom", pa.bool_()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("redraws", pa.int32()),
        ("rejections", pa.map_(pa.string(), pa.int32())),
        ("gates", pa.map_(pa.string(), pa.float64())),
        ("image_sha256", pa.string()),
        ("label_sha256", pa.string()),
    ]
)


class SyntheticSetInfo(BaseModel):
    """What all cases of a set have in common; a folder holds cases of exactly one such identity.

    labels: Original label id -> name, background included.
    spacing_mm: Voxel size along (D, H, W).
    seed: The run's seed S; a case follows from S and its number.
    config_hash: `drawing_hash` of the stages that drew.
    weights_sha256: Of the weights of each stage that drew, by stage.
    batch, threads, device: Cases drawn together, torch threads, and "cpu" or "cuda": they decide the last bits of
        the networks' numbers, and with them now and then a voxel.
    noise: The generator that the samplers' noise comes from: torch's on CPUs, or CUDA's, from which noise is drawn on
        the device. Either gives a case its numbers whatever is drawn with it or before it.
    dataset_digest: `PreparedSet.digest` of the training data.
    plan_digest: Of the plan file that the set follows; None if only a number of cases was asked for.
    gates: What accepts or rejects a case, gate -> SHA-256 of its limits; a gate that is not listed does not run.
    format: What the pairs are written as.
    label_ids: "consecutive" if the files number the labels 0, 1, 2, ... in the order of their original ids, as nnU-Net
        wants it; a DICOM segmentation numbers its segments so in any case.
    sampling: Sampling options that were chosen otherwise than in the bundles, {stage: {option: value}}.
    refined: False if images are as the image sequence generator left them.
    masks_digest: Of the masks that were given instead of drawn; None if they were drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    dataset_name: str
    dataset_digest: str
    modality: Literal["CT", "MR"]
    phantom: bool
    labels: dict[int, str]
    spacing_mm: tuple[float, float, float]
    axis_codes: str
    image_dtype: str
    pipeline_name: str
    pipeline_version: int
    seed: int
    config_hash: str
    weights_sha256: dict[str, str]
    batch: int
    threads: int
    device: Literal["cpu", "cuda"]
    noise: Literal["mt19937", "philox"] = "mt19937"
    sampling: dict[str, dict[str, int | float | str]] = {}
    refined: bool = True
    masks_digest: str | None = None
    plan_digest: str | None = None
    gates: dict[str, str] = {}
    format: Literal["nifti", "parquet", "dicom"] = "nifti"
    label_ids: LabelIds = "original"

    @classmethod
    def of(cls, dataset: BundleDataset, **choices: Any) -> Self:
        """The identity of a set that a pipeline draws.

        Args:
            dataset: What the pipeline was trained on.
            choices: All fields that do not follow from it, and those that are to differ, such as `spacing_mm`.
        """
        alike = {"modality", "phantom", "spacing_mm", "axis_codes", "image_dtype"}
        facts = {
            "dataset_name": dataset.name,
            "dataset_digest": dataset.digest,
            "labels": dataset.label_table.by_id,
        } | dataset.model_dump(include=alike)
        noise = "philox" if choices.get("device") == "cuda" else "mt19937"
        return cls(**facts | {"noise": noise} | choices)

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_mapping(self.labels)

    @property
    def written_labels(self) -> LabelTable:
        """The labels by the ids that the files have."""
        table = self.label_table
        return table if self.label_ids == "original" else table.consecutive()


class ManifestRow(BaseModel):
    """One case of the manifest; what `SyntheticSetInfo` says is repeated in each row of the file.

    shape: (D, H, W).
    spacing_mm: Voxel size along (D, H, W); None: as the set's.
    status: One that is recorded; `STATUS_RULES` says what it means.
    message: Why the case failed or was rejected, or what is unusual about how it was drawn; else empty.
    redraws: How often the case had been drawn before, each time to be rejected.
    rejections: Reason -> how often a gate rejected the case for it; a draw may have several reasons.
    gates: Score per gate, of the last draw; a gate that is not listed has not run.
    image_sha256, label_sha256: Of the files (`pair_files`); empty unless the case is done.
    """

    model_config = ConfigDict(frozen=True)

    case_id: str = Field(pattern=r"^[\w-]+$")  # it becomes a file name
    number: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    status: Literal[CaseStatus.DONE, CaseStatus.FAILED, CaseStatus.REJECTED]
    message: str = ""
    redraws: int = 0
    rejections: dict[str, int] = {}
    gates: dict[str, float] = {}
    image_sha256: str = ""
    label_sha256: str = ""


_REMEDY = "Give the folder that `medgen3d synthesize` wrote, or write the set again."


def write_rows(folder: Folder, name: str, info: SyntheticSetInfo, rows: Iterable[ManifestRow]) -> None:
    """Write a manifest, or a part of one; whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    common = info.model_dump(include={"pipeline_name", "pipeline_version", "config_hash", "phantom", "seed"})
    write_table(folder, name, info, columns_of(rows, common))


def columns_of(rows: Iterable[ManifestRow], common: Mapping[str, Any] = MappingProxyType({})) -> pa.Table:
    """Rows as the columns of a manifest, with what all rows have in common."""
    records = [
        row.model_dump() | dict(common) | {"gates": list(row.gates.items()), "rejections": list(row.rejections.items())}
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema=_COLUMNS)


def write_table(folder: Folder, name: str, info: SyntheticSetInfo, table: pa.Table) -> None:
    """Write the columns of a manifest; whole or not at all."""
    content = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_INFO_KEY: info.model_dump_json()}), content)
    folder.write(name, content.getvalue())


def read_table(folder: Folder, name: str) -> tuple[SyntheticSetInfo, pa.Table]:
    """Read a manifest, or a part of one, as columns; those that older manifests lack are empty.

    Raises:
        ArtifactError: The file is missing or damaged, or was written by another version.
    """
    where = f"{folder}/{name}"
    try:
        table = pq.read_table(io.BytesIO(folder.read(name)))
        content = json.loads((table.schema.metadata or {})[_INFO_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"an unreadable file ({error})"
        raise ArtifactError(where, found, "the manifest of a synthetic set", _REMEDY) from error
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise ArtifactError(where, f"schema version {version}", f"version {SCHEMA_VERSION}", _REMEDY)
    try:
        return SyntheticSetInfo.model_validate(content), _completed(table)
    except (ValidationError, KeyError, pa.ArrowException) as error:
        raise _damaged(where, error) from error


def rows_of(table: pa.Table, where: str) -> list[ManifestRow]:
    """The rows of a manifest's columns.

    Raises:
        ArtifactError: A row is damaged.
    """
    try:
        return [ManifestRow.model_validate(_record(record)) for record in table.to_pylist()]
    except ValidationError as error:
        raise _damaged(where, error) from error


def latest(tables: list[pa.Table]) -> pa.Table:
    """One row per case, by number: of several the one in the last table, and there the last one."""
    everything = pa.concat_tables(tables)
    backwards = everything["number"].to_numpy()[::-1]
    _, places = np.unique(backwards, return_index=True)
    return everything.take(pa.array(len(backwards) - 1 - places))


def _completed(table: pa.Table) -> pa.Table:
    num_rows = table.num_rows
    columns = [
        table[field.name] if field.name in table.column_names else _default(field, num_rows)
        for field in _COLUMNS
        if field.name in table.column_names or field.name in ("spacing_mm", "redraws", "rejections")
    ]
    return pa.table(columns, names=_COLUMNS.names).cast(_COLUMNS)


def _default(field: pa.Field, num_rows: int) -> pa.Array:
    values = {"redraws": 0, "rejections": []}
    return pa.array([values.get(field.name)] * num_rows, field.type)


def _record(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"gates": dict(record["gates"] or []), "rejections": dict(record["rejections"] or [])}


def _damaged(where: str, error: Exception) -> ArtifactError:
    return ArtifactError(where, f"a damaged manifest ({error})", f"schema {SCHEMA_VERSION}", _REMEDY)
