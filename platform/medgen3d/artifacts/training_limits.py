"""The limits that gates hold drawn cases to, learned from the prepared set that a pipeline was trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.prepared_set import PreparedSet, Split
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.measures.fingerprints import CaseFingerprint, describe_case, nearest, threshold
from medgen3d.measures.limits import CaseLimits, NearCopyLimits, learn_limits

_HELD_OUT: tuple[Split, ...] = ("validation", "test")


def limits_of(prepared: PreparedSet) -> CaseLimits:
    """Limits of masks from the training split, and of near copies from it and the real cases that were held out.

    Raises:
        ArtifactError: A case cannot be read.
        DataError: The training split is empty.
    """
    if not prepared.info.case_ids("train"):
        raise DataError(f"{prepared.root} has no training cases, so it has no limits. Give the set of the training.")
    masks = (mask for _, mask in _pairs(prepared, "train"))
    limits = learn_limits(masks, prepared.info.label_table, prepared.info.spacing_mm)
    return limits.model_copy(update={"near_copy": _near_copy(prepared)})


def fingerprints_of(prepared: PreparedSet, split: Split = "train") -> list[CaseFingerprint]:
    """What near copies are looked for among."""
    return [describe_case(image, mask) for image, mask in _pairs(prepared, split)]


def training_data(trained: str, digest: str, named: Path | None, known: str | None) -> PreparedSet | None:
    """The prepared set that something was trained on; None if it is not at hand.

    Args:
        trained: What was trained on it, for the error.
        digest: Of the set.
        named: Where a user says that it lies.
        known: Where it lay during training, if that is known; counts if the user names no place.

    Raises:
        DataError: What lies where the user says is not that set.
    """
    place = named or known
    found = _prepared_at(Path(place).absolute(), digest) if place else None  # workers run in folders of their own
    if named and found is None:
        raise DataError(
            f"{named} is not the prepared set that {trained} was trained on, whose digest is {digest[:12]}.... Name "
            "that one, or none."
        )
    return found


def _prepared_at(root: Path, digest: str) -> PreparedSet | None:
    try:
        found = PreparedSet(root)
        return found if found.digest == digest else None
    except (ArtifactError, OSError):
        return None


def _near_copy(prepared: PreparedSet) -> NearCopyLimits | None:
    train = fingerprints_of(prepared)
    held_out = [nearest(case, train) for split in _HELD_OUT for case in fingerprints_of(prepared, split)]
    if not held_out:
        return None
    return NearCopyLimits(
        image_correlation=threshold(np.array([each.image_correlation for each in held_out])),
        mask_dice=threshold(np.array([each.mask_dice for each in held_out])),
        num_held_out=len(held_out),
    )


def _pairs(prepared: PreparedSet, split: Split) -> Iterator[tuple[NDArray[np.float32], NDArray[np.integer[Any]]]]:
    for case_id in prepared.info.case_ids(split):
        case = prepared.read(case_id)
        inside = (slice(None), case.box.rows, case.box.columns)  # outside the box lies padding
        yield case.image[inside], case.mask[inside]
