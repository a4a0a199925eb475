"""Limits of a mask: learned per label from the masks of the training data, and applied to another mask. Pure."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medgen3d.core.labels import LabelTable
from medgen3d.measures.mask_measures import Mask, Spacing, label_components, label_holes

MARGIN = 1.25
"""How far beyond the training cases' own volumes a volume may lie. Of n training cases, a further real one would lie
outside their range with a probability of 2 / (n + 1): with few cases their range alone would reject sound ones."""
MISSING, VOLUME, COMPONENTS, HOLES = "missing", "volume", "components", "holes"


class LabelLimits(BaseModel):
    """The limits of one label, as the training cases have it.

    always_present: Whether every training case has it.
    volume_ml: The smallest and the largest volume of the cases that have it.
    num_components: The most 6-connected components that a case has.
    num_holes: The most cavities.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    always_present: bool
    volume_ml: tuple[float, float]
    num_components: int
    num_holes: int


class NearCopyLimits(BaseModel):
    """Similarities to the nearest training case that 99 % of held-out real cases stay below.

    image_correlation, mask_dice: As in `medgen3d.measures.fingerprints.Nearest`. A drawn case whose image lies beyond
        is a near copy, whatever its mask; masks alone may be alike.
    num_held_out: Real cases that were compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_correlation: float
    mask_dice: float
    num_held_out: int


class CaseLimits(BaseModel):
    """The limits that gates hold a drawn case to; learned from the training data.

    num_cases: Training cases that were measured.
    labels: Original label id -> limits, without the background and without labels that no case has.
    near_copy: None where no real cases were held out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_cases: int
    labels: dict[int, LabelLimits]
    near_copy: NearCopyLimits | None = None


def learn_limits(masks: Iterable[Mask], table: LabelTable, spacing_mm: Spacing) -> CaseLimits:
    """Measure training masks.

    Args:
        masks: [D, h, w] each, contiguous ids; at least one.
        table: The labels.
        spacing_mm: Voxel size along (D, H, W).
    """
    rows = np.array([_measured(mask, len(table), spacing_mm) for mask in masks])  # [cases, 3, labels]
    found = {}
    for place, label_id in enumerate(table.original_ids[1:], start=1):
        volumes, components, holes = rows[:, :, place].T
        present = volumes > 0
        if present.any():
            found[label_id] = LabelLimits(
                always_present=bool(present.all()),
                volume_ml=(float(volumes[present].min()), float(volumes[present].max())),
                num_components=int(components[present].max()),
                num_holes=int(holes[present].max()),
            )
    return CaseLimits(num_cases=len(rows), labels=found)


def beyond_limits(mask: Mask, limits: CaseLimits, table: LabelTable, spacing_mm: Spacing) -> dict[str, str]:
    """The limits that a mask breaks: reason -> sentence; empty if it is like those of the training data.

    Args:
        mask: [D, h, w], contiguous ids.
        limits: Learned with the same labels.
        table: The labels.
        spacing_mm: Voxel size along (D, H, W).
    """
    measured = _measured(mask, len(table), spacing_mm)
    reasons: dict[str, list[str]] = {}
    for place, (label_id, title) in enumerate(zip(table.original_ids, table.titles, strict=True)):
        own = limits.labels.get(label_id)
        volume, components, holes = measured[:, place]
        if own is None or (not volume and not own.always_present):
            continue
        if not volume:
            reasons.setdefault(MISSING, []).append(f"{title} is missing")
            continue
        low, high = own.volume_ml[0] / MARGIN, own.volume_ml[1] * MARGIN
        if not low <= volume <= high:
            reasons.setdefault(VOLUME, []).append(f"{title} has {volume:.3g} ml, expected {low:.3g} to {high:.3g}")
        for reason, found, most in ((COMPONENTS, components, own.num_components), (HOLES, holes, own.num_holes)):
            if found > most:
                reasons.setdefault(reason, []).append(f"{title} has {found:.0f} {reason}, at most {most} in training")
    return {reason: "; ".join(sentences) for reason, sentences in reasons.items()}


def _measured(mask: Mask, num_labels: int, spacing_mm: Spacing) -> NDArray[np.float64]:
    """[3, labels]: volume in ml, components, holes."""
    volume_ml = np.bincount(mask.ravel(), minlength=num_labels) * (np.prod(spacing_mm) / 1000.0)
    return np.stack([volume_ml, label_components(mask, num_labels), label_holes(mask, num_labels)])
