"""Plan files, in which a user asks something of single cases, as YAML, CSV or Parquet. docs/bulk.md shows one."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.planned_case import PlannedCase, Shape, case_id_of, plan_case
from medgen3d.artifacts.provenance import config_hash
from medgen3d.core.errors import ConfigError
from medgen3d.core.hashing import sha256_of
from medgen3d.measures.targets import parse_target
from medgen3d.synthesis.given_masks import mask_file
from medgen3d.synthesis.plan import SynthesisPlan, as_rows

DEFAULT_BEST_OF = 8
_SUFFIXES = (".yaml", ".yml", ".csv", ".parquet")
_WHOLE = Annotated[int, Field(ge=0, lt=2**63)]


class PlanEntry(BaseModel):
    """One row of a plan file; what is left out is drawn as in a set that is asked for by its number of cases.

    count: So many cases alike.
    seed: The case is the one that `--count 1 --seed SEED` draws.
    depth: Slices.
    spacing_mm: Voxel size (D, H, W) to which the pair is resampled when it is written.
    style: Cases with the same number share their appearance.
    mask: NIfTI file with a whole mask: only the image is drawn.
    partial_mask, known_slices: NIfTI file with a mask, and which of its slices are given, such as "0-4, 9".
    targets: What the mask shall be like.
    best_of: Masks that are drawn at most to meet the targets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: PositiveInt = 1
    seed: _WHOLE | None = None
    depth: PositiveInt | None = None
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    style: _WHOLE | None = None
    mask: str | None = None
    partial_mask: str | None = None
    known_slices: tuple[_WHOLE, ...] = ()
    targets: tuple[str, ...] = ()
    best_of: Annotated[int, Field(ge=1, le=1000)] = DEFAULT_BEST_OF

    @field_validator("spacing_mm", mode="before")
    @classmethod
    def _three_numbers(cls, value: object) -> object:
        return value.replace("x", " ").split() if isinstance(value, str) else value

    @field_validator("targets", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return [each.strip() for each in value.split(";")] if isinstance(value, str) else value

    @field_validator("known_slices", mode="before")
    @classmethod
    def _ranges(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        ends = [part.partition("-") for part in value.split(",")]
        return [place for low, _, high in ends for place in range(int(low), int(high or low) + 1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mask and self.partial_mask:
            raise ValueError("mask and partial_mask exclude each other")
        if (self.mask or self.partial_mask) and self.depth:
            raise ValueError("depth follows from the mask; leave it out")
        if bool(self.partial_mask) != bool(self.known_slices):
            raise ValueError("partial_mask and known_slices belong together")
        if self.mask and self.targets:
            raise ValueError("a mask that is given whole cannot be drawn towards targets")
        return self


def read_plan(path: Path, dataset: BundleDataset, seed: int) -> SynthesisPlan:
    """Read and check a plan file.

    Args:
        path: `.yaml` (cases, and balance), `.csv` or `.parquet` (a row per case). Masks' paths are relative to it.
        dataset: What the pipeline was trained on.
        seed: Of the run.

    Raises:
        ConfigError: The file cannot be read, or a row is not valid; it is named.
        DataError: A mask cannot be used.
    """
    entries, balance = _entries(path)
    repeated = itertools.chain.from_iterable(itertools.repeat(entry, entry.count) for entry in entries)
    cases, digests = [], {}
    shapes: dict[str, Shape] = {}
    for number, entry in enumerate(repeated):
        target = (f"{balance[number % len(balance)]}.volume_ml > 0",) if balance and not entry.mask else ()
        entry = entry.model_copy(update={"targets": (*entry.targets, *target)})
        try:
            for text in entry.targets:
                parse_target(text, dataset.label_table)
        except ConfigError as error:
            raise ConfigError(f"{path}, case {number}: {error}") from error
        for name in (entry.mask, entry.partial_mask):
            if name and name not in shapes:
                file = path.parent / name
                shapes[name], digests[name] = mask_file(file, dataset).shape, sha256_of(file)
        cases.append(_planned(number, entry, path, dataset, seed, shapes))
    if not cases:
        raise ConfigError(f"{path} plans no case. Name at least one.")
    described = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    digest = config_hash({"cases": described, "balance": list(balance), "masks": digests})
    return SynthesisPlan(count=len(cases), seed=seed, shapes=dataset.shapes, rows=as_rows(cases), digest=digest)


def _planned(
    number: int, entry: PlanEntry, path: Path, dataset: BundleDataset, seed: int, shapes: dict[str, Shape]
) -> PlannedCase:
    own = (seed, number) if entry.seed is None else (entry.seed, 0)
    planned = plan_case(*own, dataset.shapes)
    given = entry.mask or entry.partial_mask
    shape = shapes[given] if given else (entry.depth or planned.shape[0], *planned.shape[1:])
    if any(place >= shape[0] for place in entry.known_slices):
        most = max(entry.known_slices)
        raise ConfigError(f"{path}, case {number}: known_slices go up to {most}, but the mask has {shape[0]} slices")
    return planned.model_copy(
        update={
            "number": number,
            "case_id": case_id_of(number),
            "shape": shape,
            "spacing_mm": entry.spacing_mm,
            "style": entry.style,
            "mask": str((path.parent / entry.mask).absolute()) if entry.mask else None,
            "partial_mask": str((path.parent / entry.partial_mask).absolute()) if entry.partial_mask else None,
            "known_slices": entry.known_slices,
            "targets": entry.targets,
            "best_of": entry.best_of if entry.targets else 1,
        }
    )


def _entries(path: Path) -> tuple[list[PlanEntry], Sequence[str]]:
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"a plan is a file that ends in {', '.join(_SUFFIXES)}, got {path}")
    try:
        rows, balance = _rows(path)
    except (OSError, ValueError, yaml.YAMLError, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read as a plan ({error})") from error
    entries = []
    for place, row in enumerate(rows):
        try:
            entries.append(PlanEntry.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "row"
            raise ConfigError(f"{path}, row {place}: {field}: {first['msg']}, got {first['input']!r}") from error
    return entries, balance


def _rows(path: Path) -> tuple[Iterator[Any] | list[Any], Sequence[str]]:
    if path.suffix == ".parquet":
        return [_without_empty(row) for row in pq.read_table(path).to_pylist()], ()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [_without_empty(row) for row in csv.DictReader(file)], ()
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    is_plan = isinstance(content, dict) and not content.keys() - {"cases", "balance"}
    if not is_plan or not isinstance(content.get("cases"), list):
        raise ValueError("expected `cases`, a list, and perhaps `balance`, a list of labels")
    balance = content.get("balance") or []
    if not isinstance(balance, list) or not all(isinstance(label, str) for label in balance):
        raise ValueError("balance must be a list of labels")
    return content["cases"], balance


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value not in (None, "")}
