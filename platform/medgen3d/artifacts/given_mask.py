"""A mask that a user gives in place of a drawn one: the checks that it fits what a pipeline was trained on.

Bulk synthesis reads such masks from files and the service from uploads; both hold them to the same.
"""

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Volume

SPACING_TOLERANCE = 0.01
"""Share of the spacing; headers hold it as float32, and scanners round it."""
_ROUNDING = 1e-5  # share of a label that a header's float32 slope has scaled
_MOST_SHOWN = 5


def check_spacing(path: str, spacing_mm: tuple[float, float, float], dataset: BundleDataset) -> None:
    """Compare a mask's voxel size along (D, H, W) with the pipeline's.

    Raises:
        VolumeFileError: It differs by more than `SPACING_TOLERANCE`.
    """
    if not np.allclose(spacing_mm, dataset.spacing_mm, rtol=SPACING_TOLERANCE):
        found, expected = (" x ".join(f"{size:g}" for size in sizes) for sizes in (spacing_mm, dataset.spacing_mm))
        remedy = "Resample it to that spacing (nearest neighbour), or ingest it at that spacing."
        raise VolumeFileError(path, f"voxels of {found} mm (D, H, W)", expected, remedy)


def check_plane(path: str, plane: tuple[int, int], dataset: BundleDataset) -> None:
    """Compare a mask's slices (h, w) with the largest that the pipeline draws.

    Raises:
        VolumeFileError: They are larger.
    """
    if any(mine > most for mine, most in zip(plane, dataset.plane, strict=True)):
        raise VolumeFileError(path, f"slices of {plane}", f"at most {dataset.plane} (H x W)", "Crop it.")


def original_labels(path: str, volume: Volume, dataset: BundleDataset) -> NDArray[np.integer]:
    """The voxels as original label ids of the pipeline.

    Args:
        path: Named in errors.
        volume: Of any voxel type; numbers in float voxels must be whole.
        dataset: Whose labels are allowed.

    Raises:
        VolumeFileError: Voxels are not finite, not whole or no label of the pipeline.
    """
    voxels, table = volume.voxels, dataset.label_table
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all():
            raise VolumeFileError(path, "NaN or infinite voxels", "labels", "Send a label mask.")
        whole = np.rint(voxels)
        if (np.abs(voxels - whole) > _ROUNDING * np.maximum(1, whole)).any():
            raise VolumeFileError(path, "fractional voxels", "labels", "Send a label mask.")
        voxels = whole
    unknown = sorted(set(np.unique(voxels).tolist()) - set(table.original_ids))
    if unknown:
        shown = ", ".join(f"{label:g}" for label in unknown[:_MOST_SHOWN]) + (", ..." * (len(unknown) > _MOST_SHOWN))
        raise VolumeFileError(path, f"the labels {shown}", f"only {table.by_id}", "Map them to these.")
    return voxels.astype(table.dtype)
