"""The labelled sets of an evaluation, all opened alike: cases by id, on one grid, in one intensity range.

Images reach the measures in [-1, 1] by the training set's own rule, whatever they are stored as: real and synthetic
volumes alike are mapped as ingest maps them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import nifti
from medgen3d.artifacts.intensity import IntensityRule
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.prepared_set import PreparedSet, Split
from medgen3d.artifacts.report import SetDescription
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import DataError, VolumeFileError
from medgen3d.core.labels import LabelTable

Pair = tuple[NDArray[np.float32], NDArray[np.integer[Any]]]
_SPACING_TOLERANCE = 0.01  # share of the spacing; headers hold it as float32, and scanners round it


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSet:
    """Labelled volumes, read one at a time; picklable.

    spacing_mm: Voxel size of every case along (D, H, W).
    read: Case id -> image float32 [D, h, w] in [-1, 1] and mask [D, h, w] with contiguous ids.
    facts: What a reader of the report should know of the set, {term: sentence}.
    prepared: The prepared set that the cases are a split of; None for other folders.
    marked: Cases whose files say that they are synthetic.
    """

    name: str
    phantom: bool
    labels: LabelTable
    spacing_mm: tuple[float, float, float]
    case_ids: list[str]
    read: Callable[[str], Pair]
    facts: dict[str, str]
    prepared: PreparedSet | None = None
    marked: tuple[str, ...] = ()

    @property
    def description(self) -> SetDescription:
        """The set as the report describes it."""
        return SetDescription(name=self.name, num_cases=len(self.case_ids), phantom=self.phantom, facts=self.facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sets:
    """The sets of one evaluation.

    info: What the synthetic cases have in common.
    real: Cases that the generators have not seen: the test split of a prepared set.
    train: What they were trained on; None where it is not known.
    """

    info: SyntheticSetInfo
    real: LabelledSet
    synthetic: LabelledSet
    train: LabelledSet | None


def open_sets(real_root: Path, synthetic_root: Path, train_root: Path | None = None) -> Sets:
    """Open the sets of an evaluation, and see that they can be compared.

    Args:
        real_root: A prepared set, of which the test split counts, or a folder in Medical Segmentation Decathlon layout
            that lies on the synthetic grid already, of which all cases count.
        synthetic_root: A synthetic set.
        train_root: The same kinds of folder with the training cases; of a prepared set the training split counts. By
            default that of `real_root`, if that is a prepared set.

    Raises:
        DataError: A folder is none of these, has no cases, or has other labels or another spacing than the synthetic
            set.
    """
    real_root, synthetic_root = real_root.absolute(), synthetic_root.absolute()  # workers run in folders of their own
    found = SyntheticSet(synthetic_root)
    info = found.info
    train_root = train_root.absolute() if train_root else real_root if _is_prepared(real_root) else None
    rule = _rule(info, train_root, real_root)
    synthetic = _synthetic(found, rule)
    real = _real(real_root, info.spacing_mm, rule, "test")
    train = _real(train_root, info.spacing_mm, rule, "train") if train_root else None
    for labelled, root in ((synthetic, synthetic_root), (real, real_root), (train, train_root)):
        if labelled and root:
            _check_comparable(labelled, root, synthetic)
    return Sets(info=info, real=real, synthetic=synthetic, train=train)


def _is_prepared(root: Path) -> bool:
    return (root / "dataset.yaml").exists()


def _rule(info: SyntheticSetInfo, *roots: Path | None) -> IntensityRule:
    """That of the first prepared set, else the one that ingest would use by default."""
    for root in roots:
        if root and _is_prepared(root):
            return PreparedSet(root).info.intensity
    defaults = IngestConfig()
    return IntensityRule.of(info.modality, defaults.hu_window, defaults.percentiles)


def _real(root: Path, spacing_mm: tuple[float, float, float], rule: IntensityRule, split: Split) -> LabelledSet:
    if _is_prepared(root):
        found = _prepared(root, split)
    elif (root / "dataset.json").exists():
        found = _decathlon(root, spacing_mm, rule)
    else:
        raise DataError(
            f"{root} holds neither dataset.yaml (a prepared set) nor dataset.json (Medical Segmentation Decathlon). "
            "Give the folder that `medgen3d ingest` wrote, or a Decathlon folder."
        )
    _check_spacing(str(root), found.spacing_mm, spacing_mm)
    return found


def _check_comparable(labelled: LabelledSet, root: Path, synthetic: LabelledSet) -> None:
    if not labelled.case_ids:
        raise DataError(
            f"{root} holds no cases that could be compared. Give a synthetic set with cases, and real cases or a "
            "prepared set whose training and test splits are not empty."
        )
    if labelled.labels.original_ids != synthetic.labels.original_ids:
        raise DataError(
            f"the synthetic set has the labels {synthetic.labels.original_ids}, but {root} has "
            f"{labelled.labels.original_ids}. Give the real data that the pipeline was trained on."
        )


def _synthetic(synthetic: SyntheticSet, rule: IntensityRule) -> LabelledSet:
    """A synthetic set; its failed cases are left out and counted among the facts."""
    info, table = synthetic.info, synthetic.info.label_table

    def read(case_id: str) -> Pair:
        image, mask = synthetic.read(case_id)
        return _in_unit(case_id, image.voxels, rule), table.to_contiguous(mask.voxels.astype(np.int64))

    return LabelledSet(
        name=synthetic.root.name,
        phantom=info.phantom,
        labels=table,
        spacing_mm=info.spacing_mm,
        case_ids=synthetic.case_ids,
        read=read,
        facts={
            "Pipeline": f"{info.pipeline_name}, version {info.pipeline_version}",
            "Seed": str(info.seed),
            "Trained on": f"{info.dataset_name}, digest {info.dataset_digest[:12]}",
            "Configuration": f"hash {info.config_hash[:12]}",
            "Failed cases": str(len(synthetic.rows) - len(synthetic.case_ids)),
        },
    )


def _prepared(root: Path, split: Split) -> LabelledSet:
    prepared = PreparedSet(root)
    info = prepared.info

    def read(case_id: str) -> Pair:
        case = prepared.read(case_id)
        inside = (slice(None), case.box.rows, case.box.columns)  # outside the box lies padding
        return case.image[inside], case.mask[inside]

    marked = {case for note, cases in info.notes.items() if nifti.SYNTHETIC in note for case in cases}
    patients = "known" if info.patients_known else "unknown; one case is taken for one patient"
    return LabelledSet(
        name=info.name,
        phantom=info.phantom,
        labels=info.label_table,
        spacing_mm=info.spacing_mm,
        case_ids=info.case_ids(split),
        read=read,
        facts={"Prepared set": f"digest {prepared.digest[:12]}", "Split": split, "Patients": patients},
        prepared=prepared,
        marked=tuple(sorted(marked & set(info.case_ids(split)))),
    )


def _decathlon(root: Path, spacing_mm: tuple[float, float, float], rule: IntensityRule) -> LabelledSet:
    try:
        content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        table = LabelTable.from_mapping({int(label_id): str(name) for label_id, name in content["labels"].items()})
        files = {
            Path(entry["image"]).name.removesuffix(".gz").removesuffix(".nii"): (entry["image"], entry["label"])
            for entry in content["training"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{root / 'dataset.json'} is not valid ({error!r}). Expected the Medical Segmentation Decathlon's: "
            "labels {id: name} and a list of training pairs. Run `medgen3d ingest` and give the prepared set."
        ) from error

    def read(case_id: str) -> Pair:
        image, mask = (nifti.read(root / name).volume for name in files[case_id])
        _check_spacing(case_id, image.spacing_mm, spacing_mm)
        if image.voxels.shape != mask.voxels.shape:
            raise DataError(f"case {case_id}: image {image.voxels.shape} and mask {mask.voxels.shape} differ in shape.")
        return _in_unit(case_id, image.voxels, rule), table.to_contiguous(np.rint(mask.voxels).astype(np.int64))

    return LabelledSet(
        name=str(content.get("name") or root.name),
        phantom=bool(content.get("phantom", False)),
        labels=table,
        spacing_mm=spacing_mm,
        case_ids=list(files),
        read=read,
        facts={"Source": "NIfTI files as they are, neither resampled nor cropped"},
        marked=tuple(case_id for case_id, names in files.items() if any(_is_marked(root / name) for name in names)),
    )


def _is_marked(path: Path) -> bool:
    """Whether a file says that it is synthetic; one that cannot be read is named when its case is."""
    try:
        return nifti.read_header(path).mark is not None
    except VolumeFileError:
        return False


def _in_unit(case_id: str, image: NDArray[np.generic], rule: IntensityRule) -> NDArray[np.float32]:
    intensity = rule.map_of(image)
    if not np.isfinite(image).all():
        raise DataError(f"case {case_id}: the image holds NaN or infinity. Export it again, or remove the case.")
    if intensity.low >= intensity.high:
        raise DataError(
            f"case {case_id}: percentiles {rule.low:g} and {rule.high:g} of the image are both {intensity.low:g}, "
            "expected different intensities. Correct the image, or remove the case."
        )
    return intensity.to_unit(image)


def _check_spacing(where: str, found: tuple[float, float, float], expected: tuple[float, float, float]) -> None:
    if not np.allclose(found, expected, rtol=_SPACING_TOLERANCE):
        raise DataError(
            f"{where}: voxels of {_text(found)} mm, but the synthetic set has {_text(expected)} mm (D x H x W). "
            "Compare with the prepared set that the pipeline was trained on, or ingest this set at that spacing first."
        )


def _text(spacing_mm: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:g}" for length in spacing_mm)
