"""Masks that are given instead of drawn: real ones from a prepared set, or those of another set of NIfTI pairs.

Case number n takes mask number n, in the order of the set. Everything else about a case stays as it would be drawn.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import nifti
from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.dataset_json import ids_by_name
from medgen3d.artifacts.given_mask import check_plane, check_spacing, original_labels
from medgen3d.artifacts.planned_case import Shape
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import config_hash
from medgen3d.core.errors import DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.synthesis.batch_codec import InFlightCase

Mask = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenMasks:
    """Masks on disk, read one at a time by whichever worker needs them.

    case_ids: Whose masks they are.
    shapes: (D, h, w) of each.
    digest: SHA-256 that identifies all of them together.
    read: Case id -> mask [D, h, w] of contiguous ids; can be pickled.
    """

    case_ids: tuple[str, ...]
    shapes: tuple[Shape, ...]
    digest: str
    read: Callable[[str], Mask]


def open_masks(root: Path, dataset: BundleDataset, split: str = "test") -> GivenMasks:
    """The masks of a prepared set's split, or of a folder with a dataset.json (a synthetic set, a Decathlon folder).

    Args:
        root: The set's folder, seen by every machine of the cluster.
        dataset: What the pipeline was trained on; labels and spacing must be the same.
        split: Which cases of a prepared set.

    Raises:
        DataError: The folder is neither, holds no such case, or has other labels or another spacing.
    """
    root = Path(root).absolute()  # workers run in folders of their own
    if (root / "dataset.yaml").exists():
        found = _of_prepared(root, dataset, split)
    elif (root / "dataset.json").exists():
        found = _of_folder(root, dataset)
    else:
        raise DataError(
            f"{root} holds neither dataset.yaml (a prepared set) nor dataset.json (a synthetic set or a Decathlon "
            "folder). Give one of these as --masks."
        )
    if not found.case_ids:
        raise DataError(f"{root} holds no case of the split {split!r}. Choose another --split or another folder.")
    return found


def with_masks(cases: list[InFlightCase], given: GivenMasks | None, dataset: BundleDataset) -> list[InFlightCase]:
    """Put masks that are given into cases: those of a whole set, or of single cases of a plan.

    Args:
        cases: Of which nothing is drawn yet; one whose own file cannot be used any more is marked as failed.
        given: Masks of the whole set.
        dataset: What the pipeline was trained on.

    Raises:
        DataError: A mask of the whole set cannot be read.
    """
    return [_with_mask(case, given, dataset) for case in cases]


def _with_mask(case: InFlightCase, given: GivenMasks | None, dataset: BundleDataset) -> InFlightCase:
    if given:
        return replace(case, mask=given.read(given.case_ids[case.plan.number]))
    name = case.plan.mask or case.plan.partial_mask
    if not name:
        return case
    try:
        mask = mask_file(Path(name), dataset)
    except DataError as error:
        return replace(case, failure=f"case {case.plan.case_id}: {error}")
    if mask.shape != case.plan.shape:
        found = f"{name} has the shape {mask.shape}, planned {case.plan.shape}"
        return replace(case, failure=f"case {case.plan.case_id}: {found}")
    return replace(case, mask=mask)


def mask_file(path: Path, dataset: BundleDataset) -> Mask:
    """A mask [D, h, w] of contiguous ids from a NIfTI file on the pipeline's grid.

    Raises:
        DataError: The file cannot be read, or has other labels, another spacing or a larger plane.
    """
    volume = nifti.read(path).volume
    check_spacing(str(path), volume.spacing_mm, dataset)
    voxels = original_labels(str(path), volume, dataset)
    _, height, width = voxels.shape
    check_plane(str(path), (height, width), dataset)
    return dataset.label_table.to_contiguous(voxels)


def _of_prepared(root: Path, dataset: BundleDataset, split: str) -> GivenMasks:
    prepared = PreparedSet(root)
    check_spacing(str(root), prepared.info.spacing_mm, dataset)
    if prepared.info.label_table != dataset.label_table:
        raise _other_labels(root, prepared.info.labels, dataset)
    cases = [case for case in prepared.info.cases if case.split == split]
    return GivenMasks(
        case_ids=tuple(case.case_id for case in cases),
        shapes=tuple(case.shape for case in cases),
        digest=config_hash({"prepared": prepared.digest, "split": split}),
        read=partial(_prepared_mask, prepared),
    )


def _prepared_mask(prepared: PreparedSet, case_id: str) -> Mask:
    case = prepared.read(case_id)
    return case.mask[:, case.box.rows, case.box.columns]  # outside the box lies padding


def _of_folder(root: Path, dataset: BundleDataset) -> GivenMasks:
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels, names = content["labels"], [str(entry["label"]) for entry in content["training"]]
        decathlon = {"0": "background"} | labels
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not valid ({error!r}). Expected labels and a list `training` of pairs with a `label` each, as "
            "in the Medical Segmentation Decathlon."
        ) from error
    table = dataset.label_table
    if decathlon != {str(label_id): name for label_id, name in table.by_id.items()} and labels != ids_by_name(
        table.by_id
    ):
        raise _other_labels(root, labels, dataset)
    files = {Path(name).name.removesuffix(".gz").removesuffix(".nii"): root / name for name in names}
    read = partial(_file_mask, files, dataset)
    return GivenMasks(
        case_ids=tuple(files),
        shapes=tuple(read(case_id).shape for case_id in files),
        digest=config_hash({"files": [(case_id, sha256_of(file)) for case_id, file in files.items()]}),
        read=read,
    )


def _file_mask(files: dict[str, Path], dataset: BundleDataset, case_id: str) -> Mask:
    return mask_file(files[case_id], dataset)


def _other_labels(root: Path, found: object, dataset: BundleDataset) -> DataError:
    return DataError(
        f"{root} has the labels {found}, but the pipeline was trained on {dataset.label_table.by_id}. "
        "Give masks of the same labels."
    )
