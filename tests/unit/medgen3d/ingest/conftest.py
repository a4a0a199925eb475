"""Small real NIfTI pairs, sound unless a test puts a flaw in."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import DatasetInfo


@pytest.fixture
def image() -> NDArray[np.float32]:
    """(x, y, z) order, like all arrays that go into a file."""
    return np.random.default_rng(0).normal(100, 20, (6, 7, 8)).astype(np.float32)


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    voxels = np.zeros((6, 7, 8), dtype=np.uint8)
    voxels[1:4, 1:4, 1:4], voxels[4, 4, 4] = 1, 2
    return voxels


@pytest.fixture
def affine() -> NDArray[np.float64]:
    """1 x 1 x 2 mm along x, y, z."""
    return np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def write_pair(tmp_path, image, mask, affine) -> Callable[..., tuple[Path, Path]]:
    """Write images/CASE.nii.gz and labels/CASE.nii.gz below tmp_path; what is not given is sound."""

    def write(case, image=image, mask=mask, affine=affine, mask_affine=None):
        paths = []
        for folder, array, place in (("images", image, affine), ("labels", mask, mask_affine)):
            (tmp_path / folder).mkdir(exist_ok=True)
            paths.append(tmp_path / folder / f"{case}.nii.gz")
            nib.save(nib.Nifti1Image(array, affine if place is None else place), paths[-1])
        return tuple(paths)

    return write


@pytest.fixture
def dataset_info() -> DatasetInfo:
    """What fits the sound pair without resampling or cropping."""
    return DatasetInfo(
        name="tiny",
        modality="MR",
        labels={0: "background", 1: "left", 2: "right"},
        spacing_mm=(2.0, 1.0, 1.0),
        plane=(8, 8),
        intensity={"kind": "percentiles", "low": 0.5, "high": 99.5},
        inverse=Intensity(low=0, high=200),
        seed=0,
        patients_known=False,
        cases=[],
    )
