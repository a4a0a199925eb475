"""The manifest of a synthetic set: a Parquet table with a row per case, and in its metadata what the set is."""

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable

SCHEMA_VERSION = 1
_INFO_KEY = b"medgen3d.synthetic_set"
_COLUMNS = pa.schema(
    [
        ("case_id", pa.string()),
        ("number", pa.int64()),
        ("seed", pa.int64()),
        ("shape", pa.list_(pa.int32(), 3)),
        ("pipeline_name", pa.string()),
        ("pipeline_version", pa.int64()),
        ("config_hash", pa.string()),
        ("phantom", pa.bool_()),
        ("status", pa.string()),
        ("message", pa.string()),
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
    config_hash: Of the configurations of the stages that drew, sampling options as they were used.
    weights_sha256: Of the weights of each stage that drew, by stage.
    batch, threads, device: Cases drawn in lock-step, torch threads, and "cpu" or "cuda": they decide the last bits of
        the networks' numbers, and with them now and then a voxel.
    dataset_digest: `PreparedSet.digest` of the training data.
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
    sampling: dict[str, dict[str, int | float | str]] = {}
    refined: bool = True
    masks_digest: str | None = None

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_mapping(self.labels)


class ManifestRow(BaseModel):
    """One case of the manifest; what `SyntheticSetInfo` says is repeated in each row of the file.

    shape: (D, H, W).
    message: Why a failed case failed, or what is unusual about a case that was drawn; else empty.
    gates: Score per gate; a gate that is not listed has not run.
    image_sha256, label_sha256: Of the files; empty for a failed case.
    """

    model_config = ConfigDict(frozen=True)

    case_id: str = Field(pattern=r"^[\w-]+$")  # it becomes a file name
    number: int
    shape: tuple[int, int, int]
    status: Literal["done", "failed"]
    message: str = ""
    gates: dict[str, float] = {}
    image_sha256: str = ""
    label_sha256: str = ""


def write_rows(path: Path, info: SyntheticSetInfo, rows: list[ManifestRow]) -> None:
    """Write a manifest, or a part of one; whole or not at all."""
    common = info.model_dump(include={"pipeline_name", "pipeline_version", "config_hash", "phantom", "seed"})
    records = [row.model_dump() | common | {"gates": list(row.gates.items())} for row in rows]
    schema = _COLUMNS.with_metadata({_INFO_KEY: info.model_dump_json()})
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(records, schema=schema), unfinished)
    unfinished.replace(path)


def read_rows(path: Path) -> tuple[SyntheticSetInfo, list[ManifestRow]]:
    """Read a manifest, or a part of one.

    Raises:
        ArtifactError: The file is missing or damaged, or was written by another version.
    """
    remedy = "Give the folder that `medgen3d synthesize` wrote, or write the set again."
    try:
        table = pq.read_table(path)
        content = json.loads((table.schema.metadata or {})[_INFO_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"an unreadable file ({error})"
        raise ArtifactError(str(path), found, "the manifest of a synthetic set", remedy) from error
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise ArtifactError(str(path), f"schema version {version}", f"version {SCHEMA_VERSION}", remedy)
    try:
        info = SyntheticSetInfo.model_validate(content)
        rows = [ManifestRow.model_validate(record | {"gates": dict(record["gates"])}) for record in table.to_pylist()]
    except (ValidationError, KeyError) as error:
        raise ArtifactError(str(path), f"a damaged manifest ({error})", f"schema {SCHEMA_VERSION}", remedy) from error
    return info, rows
