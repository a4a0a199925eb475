"""Measures of a mask, per label: size, place, shape, parts and neighbours. Pure: a mask in, numbers out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Mask = NDArray[np.integer]
Spacing = tuple[float, float, float]


class MaskMeasures(NamedTuple):
    """Measures of one mask: one entry per label, background first; NaN where the label is absent.

    num_voxels: int64 [K], 0 where absent.
    volume_ml: [K], 0 where absent.
    centroid: [K, 3], shares of the array's (D, H, W).
    surface_to_volume: [K] in 1/mm; the surface is that of the voxels' exposed faces.
    num_components: [K], 6-connected.
    num_holes: [K], cavities that do not reach the array's border.
    adjacency: [K, K], share of a row's surface that touches a column's label.
    """

    num_voxels: NDArray[np.int64]
    volume_ml: NDArray[np.float64]
    centroid: NDArray[np.float64]
    surface_to_volume: NDArray[np.float64]
    num_components: NDArray[np.float64]
    num_holes: NDArray[np.float64]
    adjacency: NDArray[np.float64]


def measure_mask(mask: Mask, num_labels: int, spacing_mm: Spacing) -> MaskMeasures:
    """Measure one mask; the suite calls it once per case.

    Args:
        mask: [D, H, W], contiguous ids 0..num_labels - 1.
        num_labels: K, background included.
        spacing_mm: Voxel size along (D, H, W).
    """
    num_voxels = np.bincount(mask.ravel(), minlength=num_labels)
    volume_mm3 = num_voxels.astype(np.float64) * np.prod(spacing_mm)
    between, surface = shared_faces(mask, num_labels, spacing_mm)
    return MaskMeasures(
        num_voxels=num_voxels,
        volume_ml=volume_mm3 / 1000.0,
        centroid=relative_centroids(mask, num_labels),
        surface_to_volume=ratio(surface, volume_mm3),
        num_components=np.where(num_voxels > 0, label_components(mask, num_labels), np.nan),
        num_holes=np.where(num_voxels > 0, label_holes(mask, num_labels), np.nan),
        adjacency=ratio(between, surface[:, None]),
    )


def slice_counts(mask: Mask, num_labels: int, axis: int) -> NDArray[np.int64]:
    """Voxels per label in every slice along an axis: int64 [slices, num_labels]."""
    counts = np.zeros((mask.shape[axis], num_labels), dtype=np.int64)
    for place, each in enumerate(np.moveaxis(mask, axis, 0)):
        counts[place] = np.bincount(each.ravel(), minlength=num_labels)
    return counts


def relative_centroids(mask: Mask, num_labels: int) -> NDArray[np.float64]:
    """Centre of mass per label in shares of the (D, H, W) of the array, 0 to 1: [num_labels, 3], NaN where absent."""
    centroids = []
    for axis, length in enumerate(mask.shape):
        counts = slice_counts(mask, num_labels, axis)
        places = (np.arange(length) + 0.5) / length
        centroids.append(ratio(places @ counts, counts.sum(axis=0)))
    return np.stack(centroids, axis=1)


def shared_faces(mask: Mask, num_labels: int, spacing_mm: Spacing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area of the voxel faces between every two different labels, and of all of a label's exposed faces, in mm².

    Returns:
        Areas between labels [num_labels, num_labels], symmetric, with zeros on the diagonal; and surfaces
        [num_labels], which also hold the faces at the array's border.
    """
    between = np.zeros((num_labels, num_labels))
    at_border = np.zeros(num_labels)
    for axis in range(3):
        area = np.prod(spacing_mm) / spacing_mm[axis]
        slices = np.moveaxis(mask, axis, 0)
        before, after = slices[:-1], slices[1:]
        differ = before != after
        pairs = before[differ].astype(np.int64) * num_labels + after[differ]
        faces = np.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels)
        between += area * (faces + faces.T)
        at_border += area * slice_counts(slices[[0, -1]], num_labels, 0).sum(axis=0)
    return between, between.sum(axis=1) + at_border


def label_components(mask: Mask, num_labels: int) -> NDArray[np.int64]:
    """6-connected components (voxels that share a face) per label: int64 [num_labels]."""
    counts = np.zeros(num_labels, dtype=np.int64)
    for label, own in _own_masks(mask, num_labels):
        _, counts[label] = ndimage.label(own)
    return counts


def label_holes(mask: Mask, num_labels: int) -> NDArray[np.int64]:
    """Cavities per label, 6-connected, that do not reach the array's border, empty or filled: int64 [num_labels]."""
    counts = np.zeros(num_labels, dtype=np.int64)
    for label, own in _own_masks(mask, num_labels):
        # A margin joins all that reaches the label's box from outside into one component.
        _, num_around = ndimage.label(np.pad(~own, 1, constant_values=True))
        counts[label] = num_around - 1
    return counts


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Part / whole, NaN where the whole is 0; the two are broadcast."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def _own_masks(mask: Mask, num_labels: int) -> list[tuple[int, NDArray[np.bool_]]]:
    """(label, its binary mask, cut to its bounding box) of every label that is present."""
    boxes = ndimage.find_objects(mask.astype(np.int32) + 1, max_label=num_labels)
    return [(label, mask[box] == label) for label, box in enumerate(boxes) if box is not None]
