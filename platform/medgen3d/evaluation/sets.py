"""The labelled sets that a report compares, each opened as the same thing: cases by id, on one grid spacing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import nifti
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.core.errors import DataError
from medgen3d.core.labels import LabelTable

Pair = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]
_SPACING_TOLERANCE = 0.01  # share of the spacing; headers hold it as float32, and scanners round it


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSet:
    """Labelled volumes, read one at a time.

    spacing_mm: Voxel size of every case along (D, H, W).
    read: Case id -> image [D, H, W] in any unit and mask [D, H, W] with contiguous ids.
    facts: What a reader of the report should know of the set, {term: sentence}.
    """

    name: str
    phantom: bool
    labels: LabelTable
    spacing_mm: tuple[float, float, float]
    case_ids: list[str]
    read: Callable[[str], Pair]
    facts: dict[str, str]


def open_real(root: Path, spacing_mm: tuple[float, float, float]) -> LabelledSet:
    """A prepared set, or NIfTI files in Medical Segmentation Decathlon layout that lie on the synthetic grid already.

    Args:
        root: The set's folder.
        spacing_mm: Of the synthetic set, along (D, H, W).

    Raises:
        DataError: The folder is neither, or has another spacing.
    """
    if (root / "dataset.yaml").exists():
        found = _open_prepared(root)
    elif (root / "dataset.json").exists():
        found = _open_decathlon(root, spacing_mm)
    else:
        raise DataError(
            f"{root} holds neither dataset.yaml (a prepared set) nor dataset.json (Medical Segmentation Decathlon). "
            "Give the folder that `medgen3d ingest` wrote, or a Decathlon folder."
        )
    _check_spacing(str(root), found.spacing_mm, spacing_mm)
    return found


def open_synthetic(root: Path) -> LabelledSet:
    """A synthetic set; its failed cases are left out and counted among the facts.

    Raises:
        ArtifactError: The folder is no synthetic set, or a file is damaged (when it is read).
    """
    synthetic = SyntheticSet(root)
    info, table = synthetic.info, synthetic.info.label_table

    def read(case_id: str) -> Pair:
        image, mask = synthetic.read(case_id)
        return image.voxels.astype(np.float32), table.to_contiguous(mask.voxels.astype(np.int64))

    return LabelledSet(
        name=root.resolve().name,
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


def _open_prepared(root: Path) -> LabelledSet:
    prepared = PreparedSet(root)
    info = prepared.info

    def read(case_id: str) -> Pair:
        case = prepared.read(case_id)
        inside = (slice(None), case.box.rows, case.box.columns)  # outside the box lies padding
        return case.image[inside], case.mask[inside]

    splits = ", ".join(f"{len(info.case_ids(split))} {split}" for split in ("train", "validation", "test"))
    patients = "known" if info.patients_known else "unknown; one case is taken for one patient"
    return LabelledSet(
        name=info.name,
        phantom=info.phantom,
        labels=info.label_table,
        spacing_mm=info.spacing_mm,
        case_ids=info.case_ids(),
        read=read,
        facts={"Prepared set": f"digest {prepared.digest[:12]}", "Splits": splits, "Patients": patients},
    )


def _open_decathlon(root: Path, spacing_mm: tuple[float, float, float]) -> LabelledSet:
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
        return image.voxels.astype(np.float32), table.to_contiguous(np.rint(mask.voxels).astype(np.int64))

    return LabelledSet(
        name=str(content.get("name") or root.resolve().name),
        phantom=bool(content.get("phantom", False)),
        labels=table,
        spacing_mm=spacing_mm,
        case_ids=list(files),
        read=read,
        facts={"Source": "NIfTI files as they are, neither resampled nor cropped"},
    )


def _check_spacing(where: str, found: tuple[float, float, float], expected: tuple[float, float, float]) -> None:
    if not np.allclose(found, expected, rtol=_SPACING_TOLERANCE):
        raise DataError(
            f"{where}: voxels of {_text(found)} mm, but the synthetic set has {_text(expected)} mm (D x H x W). "
            "Compare with the prepared set that the pipeline was trained on, or ingest this set at that spacing first."
        )


def _text(spacing_mm: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:g}" for length in spacing_mm)
