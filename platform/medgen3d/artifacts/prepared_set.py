"""The prepared set: what ingest writes and training reads. A folder with `dataset.yaml` and `cases/part-*.parquet`.

Each part holds `CASES_PER_PART` cases in case order, one row and one row group per case, so that a case is read alone
and parts can be written by different machines. See docs/artifacts.md.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from medgen3d.artifacts.intensity import Intensity, IntensityRule, Modality
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable
from medgen3d.core.volume import Affine, Box

SCHEMA_VERSION = 1
LICENCE = "licence.txt"
CASES_PER_PART = 16
Split = Literal["train", "validation", "test"]
Shape = tuple[int, int, int]

_COLUMNS = pa.schema(
    [
        ("case_id", pa.string()),
        ("split", pa.string()),
        ("shape", pa.list_(pa.int32(), 3)),
        ("image", pa.large_binary()),
        ("mask", pa.large_binary()),
        ("mask_dtype", pa.string()),
        ("box", pa.list_(pa.int32(), 4)),
        ("affine", pa.list_(pa.float64(), 16)),
        ("intensity", pa.list_(pa.float64(), 2)),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedCase:
    """One case on the training grid.

    image: float32 [D, H, W] in [-1, 1] (stored as float16), reflect-padded outside `box`.
    mask: uint8 or uint16 [D, H, W], contiguous label ids, background outside `box`.
    box: Where the case itself lies in the H x W plane. D is never padded.
    affine: 4 x 4 of the prepared grid before padding: maps (x, y, z) indices within the box to RAS millimetres.
    intensity: How the image got into [-1, 1].
    """

    case_id: str
    split: Split
    image: NDArray[np.float32]
    mask: NDArray[np.integer]
    box: Box
    affine: Affine
    intensity: Intensity


class CaseEntry(BaseModel):
    """A case in the table of contents. `shape` is (D, height, width) of the case itself, without padding."""

    model_config = ConfigDict(extra="forbid")

    case_id: str
    patient: str
    split: Split
    shape: Shape
    sources_sha256: dict[str, str]


class DatasetInfo(BaseModel):
    """`dataset.yaml`.

    spacing_mm: Voxel size along (D, H, W).
    plane: (H, W), to which every slice is padded.
    axis_codes: The most common orientation of the source files; synthetic files are written in it.
    image_dtype: numpy name of the most common voxel type of the source images.
    intensity: How each image got into [-1, 1].
    inverse: Median intensity map of the training split; takes synthetic images from [-1, 1] to scanner units.
    cropped: Cases that were larger than `plane`.
    skipped: Cases that were left out, with the reason.
    cut_from: Digest of the prepared set that this one holds some cases of (`artifacts/subset.py`); None: of none.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    modality: Modality
    phantom: bool = False
    labels: dict[int, str]
    spacing_mm: tuple[float, float, float]
    plane: tuple[int, int]
    axis_codes: str = "RAS"
    image_dtype: str = "float32"
    intensity: IntensityRule
    inverse: Intensity
    seed: int
    patients_known: bool
    cases: list[CaseEntry]
    cropped: list[str] = []
    skipped: dict[str, str] = {}
    cut_from: str | None = None

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_mapping(self.labels)

    def case_ids(self, split: Split | None = None) -> list[str]:
        """The cases of a split (all without one), in stored order."""
        return [case.case_id for case in self.cases if split is None or case.split == split]

    def shapes(self, split: Split) -> Counter[Shape]:
        """How often each (D, height, width) occurs in a split."""
        return Counter(case.shape for case in self.cases if case.split == split)


def write_part(root: Path, part: int, cases: Iterable[PreparedCase]) -> None:
    """Write cases `part * CASES_PER_PART` and following; whole or not at all, so a repeated call is harmless.

    The cases may be made as they are asked for: one at a time is in memory.
    """
    target = _part_path(root, part)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    with pq.ParquetWriter(unfinished, _COLUMNS, compression="zstd") as writer:
        for case in cases:
            writer.write_table(pa.Table.from_pylist([_row(case)], schema=_COLUMNS), row_group_size=1)
    unfinished.replace(target)


def holds_part(root: Path, part: int, case_ids: list[str]) -> bool:
    """Whether a part is there, can be read wholly, and holds these cases in this order."""
    path = _part_path(root, part)
    try:
        with pq.ParquetFile(path) as file:
            records = (file.read_row_group(row).to_pylist()[0] for row in range(file.num_row_groups))
            return [_case(record, str(record["case_id"]), path).case_id for record in records] == case_ids
    except (OSError, pa.ArrowException, IndexError, ArtifactError):
        return False


def write_info(root: Path, info: DatasetInfo) -> None:
    """Write `dataset.yaml`, last of all: a folder without it is no prepared set."""
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / "dataset.yaml.unfinished"
    content = info.model_dump(mode="json", exclude_none=True)
    unfinished.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    unfinished.replace(root / "dataset.yaml")


def write_licence(root: Path, licence: str) -> None:
    """Write `licence.txt`, if there is anything to say. It is no part of the digest: it changes no number."""
    if licence:
        (root / LICENCE).write_text(licence, encoding="utf-8")


class PreparedSet:
    """A prepared set on disk, opened for reading; cases are read one at a time.

    Raises:
        ArtifactError: The folder is no prepared set, is damaged, or was written by another version.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.info = _read_info(self.root)
        self._place = {case.case_id: index for index, case in enumerate(self.info.cases)}

    def __len__(self) -> int:
        return len(self.info.cases)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over `dataset.yaml` and every part: the data set's identity in provenance."""
        digest = hashlib.sha256()
        for path in [self.root / "dataset.yaml", *sorted((self.root / "cases").glob("part-*.parquet"))]:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    @property
    def licence(self) -> str | None:
        """Of the data, as their source says it; None if it says nothing."""
        path = self.root / LICENCE
        return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None

    def read(self, case_id: str) -> PreparedCase:
        """One case by its id.

        Raises:
            ArtifactError: There is no such case, or its part is missing or damaged.
        """
        if case_id not in self._place:
            raise ArtifactError(str(self.root), f"no case {case_id!r}", "one of its case ids", "See dataset.yaml.")
        part, row = divmod(self._place[case_id], CASES_PER_PART)
        path = _part_path(self.root, part)
        try:
            with pq.ParquetFile(path) as file:
                record = file.read_row_group(row).to_pylist()[0]
        except (OSError, pa.ArrowException, IndexError) as error:
            raise ArtifactError(
                str(path), str(error), f"a part that holds case {case_id}", "Run ingest again."
            ) from error
        return _case(record, case_id, path)


def _part_path(root: Path, part: int) -> Path:
    return root / "cases" / f"part-{part:05d}.parquet"


def _read_info(root: Path) -> DatasetInfo:
    path = root / "dataset.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ArtifactError(str(path), found, "a prepared set", "Make one with `medgen3d ingest`.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(str(path), f"schema version {version}", f"version {SCHEMA_VERSION}", "Run ingest again.")
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            str(path), f"{where}: {first['msg']}", "a valid dataset.yaml", "Run ingest again."
        ) from error


def _row(case: PreparedCase) -> dict[str, object]:
    image = np.ascontiguousarray(case.image, dtype="<f2")
    mask = np.ascontiguousarray(case.mask, dtype=case.mask.dtype.newbyteorder("<"))
    if image.shape != mask.shape:
        raise ValueError(f"case {case.case_id}: image {image.shape} and mask {mask.shape} differ in shape")
    return {
        "case_id": case.case_id,
        "split": case.split,
        "shape": list(image.shape),
        "image": image.tobytes(),
        "mask": mask.tobytes(),
        "mask_dtype": mask.dtype.name,
        "box": [case.box.top, case.box.bottom, case.box.left, case.box.right],
        "affine": case.affine.ravel().tolist(),
        "intensity": [case.intensity.low, case.intensity.high],
    }


def _case(record: dict[str, Any], case_id: str, path: Path) -> PreparedCase:
    shape, image, mask = tuple(record["shape"]), record["image"], record["mask"]
    num_voxels, mask_type = int(np.prod(shape)), record["mask_dtype"]
    sound = (
        record["case_id"] == case_id
        and mask_type in ("uint8", "uint16")
        and len(image) == 2 * num_voxels
        and len(mask) == num_voxels * np.dtype(mask_type).itemsize
    )
    if not sound:
        raise ArtifactError(str(path), f"a damaged row for case {case_id}", f"{shape} voxels", "Run ingest again.")
    top, bottom, left, right = record["box"]
    low, high = record["intensity"]
    return PreparedCase(
        case_id=case_id,
        split=record["split"],
        image=np.frombuffer(image, dtype="<f2").reshape(shape).astype(np.float32),
        mask=np.frombuffer(mask, dtype=np.dtype(mask_type).newbyteorder("<")).reshape(shape),
        box=Box(top=top, bottom=bottom, left=left, right=right),
        affine=np.array(record["affine"], dtype=np.float64).reshape(4, 4),
        intensity=Intensity(low=low, high=high),
    )
