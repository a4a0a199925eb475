"""Small sets on disk: a liver of known size, two spleens of 8 voxels each, and noise."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medgen3d.artifacts import nifti
from medgen3d.artifacts.intensity import Intensity, IntensityRule
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.prepared_set import CaseEntry, DatasetInfo, PreparedCase, write_info, write_prepared_case
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case
from medgen3d.artifacts.synthetic_set import write_part as write_manifest_part
from medgen3d.core.volume import Box, Volume, affine_from_spacing

SPACING_MM = (2.0, 1.0, 0.5)  # a voxel is one microlitre
LABELS = {0: "background", 5: "liver", 9: "spleen"}
HU_WINDOW = IntensityRule(kind="hu_window", low=-200, high=300)


def scene(side: int, seed: int, noise: float = 4.0) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """An image in Hounsfield units and a mask of original ids, 8 x 16 x 16; the liver has 2 x side x side voxels.

    Liver is about 50 HU, spleen 90 HU, background 0 HU.
    """
    mask = np.zeros((8, 16, 16), dtype=np.uint16)
    mask[0:2, :side, :side] = 5
    mask[4:6, 0:2, 0:2] = mask[4:6, 8:10, 8:10] = 9
    image = 10 * mask + np.random.default_rng(seed).normal(scale=noise, size=mask.shape)
    return image.astype(np.float32), mask


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes a second to make one, so it is made once and copied."""
    from medgen3d.registry.tracking import Tracking  # loads MLflow, which most tests do without
    from medgen3d.registry.versions import list_models

    folder = tmp_path_factory.mktemp("registry") / "not there yet"
    list_models(Tracking(uri=f"sqlite:///{folder}/mlflow.db", artifact_root=folder))
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def make_synthetic() -> Callable[..., Path]:
    """make_synthetic(root, seeds, side, noise, shift, **fields of the set): case n is the scene of seeds[n].

    Its mask is moved by `shift` voxels along W, so that it no longer fits the image.
    """

    def make(
        root: Path, seeds: range = range(3), side: int = 5, noise: float = 4.0, shift: int = 0, **changes: object
    ) -> Path:
        fields = {
            "dataset_name": "abdomen",
            "dataset_digest": "d" * 64,
            "modality": "CT",
            "phantom": False,
            "labels": LABELS,
            "spacing_mm": SPACING_MM,
            "axis_codes": "LPS",
            "image_dtype": "float32",
            "pipeline_name": "abdomen",
            "pipeline_version": 4,
            "seed": 77,
            "config_hash": "c" * 64,
            "weights_sha256": {"refiner": "f" * 64},
            "batch": 8,
            "threads": 1,
            "device": "cpu",
        }
        info = SyntheticSetInfo.model_validate(fields | changes)
        open_for_writing(root, info)
        rows = [ManifestRow(case_id="syn_00099", number=99, shape=(1, 1, 1), status="failed", message="no luck")]
        for number, seed in enumerate(seeds):
            drawn, labelled = scene(side, seed, noise)
            image, mask = (
                Volume(voxels=voxels, affine=affine_from_spacing(SPACING_MM))
                for voxels in (drawn, np.roll(labelled, shift, axis=2))
            )
            rows.append(write_case(root, info, case_id=f"syn_{number:05d}", number=number, image=image, mask=mask))
        write_manifest_part(root, info, 0, rows)
        merge_parts(root)
        return root

    return make


@pytest.fixture(scope="session")
def make_prepared() -> Callable[..., Path]:
    """make_prepared(root, test seeds, train seeds, side, noise, **fields of the set): cases in a larger plane."""

    def make(
        root: Path,
        test: range = range(100, 104),
        train: range = range(200, 203),
        side: int = 5,
        noise: float = 4.0,
        **changes: object,
    ) -> Path:
        splits = dict.fromkeys(test, "test") | dict.fromkeys(train, "train")
        spacing_mm, plane = changes.get("spacing_mm", SPACING_MM), changes.get("plane", (24, 24))
        box = Box.centred(16, 16, *plane)
        around = ((0, 0), (box.top, plane[0] - box.bottom), (box.left, plane[1] - box.right))
        cases, entries = [], []
        for seed, split in splits.items():
            image, mask = scene(side, seed, noise)
            entries.append(
                CaseEntry(case_id=f"real_{seed}", patient=str(seed), split=split, shape=mask.shape, sources_sha256={})
            )
            unit = HU_WINDOW.map_of(image).to_unit(image)
            cases.append(
                PreparedCase(
                    case_id=f"real_{seed}",
                    split=split,
                    image=np.pad(unit, around, constant_values=1.0),
                    mask=np.pad(np.searchsorted([0, 5, 9], mask).astype(np.uint8), around),
                    box=box,
                    affine=affine_from_spacing(spacing_mm),
                    intensity=HU_WINDOW.map_of(image),
                )
            )
        fields = {
            "name": "abdomen",
            "modality": "CT",
            "labels": LABELS,
            "spacing_mm": spacing_mm,
            "plane": plane,
            "intensity": HU_WINDOW,
            "inverse": Intensity(low=-200, high=300),
            "seed": 0,
            "patients_known": True,
            "cases": entries,
        }
        for number, case in enumerate(cases):
            write_prepared_case(root, number, case)
        write_info(root, DatasetInfo.model_validate(fields | changes))
        return root

    return make


@pytest.fixture(scope="session")
def make_decathlon() -> Callable[..., Path]:
    """make_decathlon(root, seeds, side, spacing_mm)."""

    def make(
        root: Path, seeds: range = range(100, 104), side: int = 5, spacing_mm: tuple[float, ...] = SPACING_MM
    ) -> Path:
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
        names = [f"case_{seed}.nii.gz" for seed in seeds]
        for seed, name in zip(seeds, names, strict=True):
            image, mask = (
                Volume(voxels=voxels, affine=affine_from_spacing(spacing_mm)) for voxels in scene(side, seed)
            )
            nifti.write(root / "imagesTr" / name, image, "LAS")
            nifti.write(root / "labelsTr" / name, mask, "LAS")
        pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
        content = {"name": "abdomen", "labels": {str(label): name for label, name in LABELS.items()}, "training": pairs}
        (root / "dataset.json").write_text(json.dumps(content))
        return root

    return make
