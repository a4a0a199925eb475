"""The prepared set: what ingest writes and training reads. A folder with `dataset.yaml` and `cases/*.arrow`.

Each case has a file of its own, in case order, so that cases can be written by different machines; of a file, slabs and
crops are read alone. See docs/artifacts.md.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from medgen3d.artifacts.case_file import CaseFile, write_case_file
from medgen3d.artifacts.intensity import Intensity, IntensityRule, Modality
from medgen3d.artifacts.provenance import config_hash
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable
from medgen3d.core.volume import Affine, Box

SCHEMA_VERSION = 3
LICENCE = "licence.txt"
Split = Literal["train", "validation", "test"]
Shape = tuple[int, int, int]


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
    image_dtype: numpy name of the voxel type in which synthetic images are written: it holds `inverse`.
    intensity: How each image got into [-1, 1].
    inverse: Median intensity map of the training split; takes synthetic images from [-1, 1] to scanner units.
    cropped: Cases that were larger than `plane`.
    skipped: Cases that were left out, with the reason.
    notes: Sentences about what is lost, ambiguous or suspicious, each with the cases that it is about; without cases
        it is about the set.
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
    notes: dict[str, list[str]] = {}
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


def write_prepared_case(root: Path, number: int, case: PreparedCase) -> None:
    """Write case `number` of a set; whole or not at all, so a repeated call is harmless.

    Raises:
        ValueError: Image and mask differ in shape.
        OSError: It cannot be written.
    """
    facts = {
        "case_id": case.case_id,
        "split": case.split,
        "box": [case.box.top, case.box.bottom, case.box.left, case.box.right],
        "affine": case.affine.tolist(),
        "intensity": [case.intensity.low, case.intensity.high],
    }
    write_case_file(case_path(root, number), case.image, case.mask, facts)


def holds_case(root: Path, number: int, case_id: str) -> bool:
    """Whether a case is there and every voxel of it as it was written."""
    try:
        _opened(root, number, case_id).check()
    except ArtifactError:
        return False
    return True


def case_path(root: Path, number: int) -> Path:
    """The file of case `number` of a set."""
    return root / "cases" / f"{number:06d}.arrow"


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
        """SHA-256 over the description and every case: the data set's identity in provenance.

        It is of what the set says and holds, not of its files: other chunks or another compression change nothing.
        Notes change nothing of it.
        Voxels are known by the checksums that were written with them: damage since then shows when a case is read.
        """
        cases = [self.open(case.case_id) for case in self.info.cases]
        return config_hash(
            {
                "info": self.info.model_dump(mode="json", exclude={"schema_version", "notes"}),
                "cases": [{"shape": case.shape, "facts": case.facts, "sha256": case.sha256} for case in cases],
            }
        )

    @property
    def licence(self) -> str | None:
        """Of the data, as their source says it; None if it says nothing."""
        path = self.root / LICENCE
        return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None

    def open(self, case_id: str) -> CaseFile:
        """One case by its id, of which nothing is read until it is sliced.

        Raises:
            ArtifactError: There is no such case, or its file is missing or damaged.
        """
        if case_id not in self._place:
            raise ArtifactError(str(self.root), f"no case {case_id!r}", "one of its case ids", "See dataset.yaml.")
        return _opened(self.root, self._place[case_id], case_id)

    def read(self, case_id: str) -> PreparedCase:
        """One case by its id, as a whole.

        Raises:
            ArtifactError: There is no such case, or its file is missing or damaged.
        """
        return _whole(self.open(case_id), case_id)


def _opened(root: Path, number: int, case_id: str) -> CaseFile:
    file = CaseFile(case_path(root, number))
    if file.facts.get("case_id") != case_id:
        found = f"case {file.facts.get('case_id')!r}"
        raise ArtifactError(str(file.path), found, f"case {case_id!r}", "Run ingest again.")
    return file


def box_of(file: CaseFile) -> Box:
    """Where the case itself lies in the plane of its file."""
    top, bottom, left, right = file.facts["box"]
    return Box(top=top, bottom=bottom, left=left, right=right)


def _whole(file: CaseFile, case_id: str) -> PreparedCase:
    low, high = file.facts["intensity"]
    return PreparedCase(
        case_id=case_id,
        split=file.facts["split"],
        image=file.image[:],
        mask=file.mask[:],
        box=box_of(file),
        affine=np.array(file.facts["affine"], dtype=np.float64),
        intensity=Intensity(low=low, high=high),
    )


def _read_info(root: Path) -> DatasetInfo:
    path = root / "dataset.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ArtifactError(str(path), found, "a prepared set", "Make one with `medgen3d ingest`.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        remedy = f"Make it anew: medgen3d ingest SOURCE --out {root} --overwrite"
        raise ArtifactError(str(path), f"schema version {version}", f"version {SCHEMA_VERSION}", remedy)
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            str(path), f"{where}: {first['msg']}", "a valid dataset.yaml", "Run ingest again."
        ) from error
