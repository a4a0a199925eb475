"""Fingerprints of cases, by which their likeness is measured under flips and small shifts, whatever their size."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GRID = 24
MAX_SHIFT = 1  # places of the grid
_INNER = GRID - 2 * MAX_SHIFT
_NUM_TRANSFORMS = 2**3 * (2 * MAX_SHIFT + 1) ** 3
PERCENTILE = 0.01


class CaseFingerprint(NamedTuple):
    """A case on a grid that all cases share, its whole extent along each axis scaled to GRID places.

    image: float32 [GRID, GRID, GRID].
    shares: {label: float16 [GRID, GRID, GRID], its share of each place}, for the labels that the mask has, not the
        background. Shares and not labels: half a place of shift would change many labels, but shares only a little.
    embedding: float32 [C], mean features of the image; None without a judge.
    """

    image: NDArray[np.float32]
    shares: dict[int, NDArray[np.float16]]
    embedding: NDArray[np.float32] | None


class Likeness(NamedTuple):
    """Likeness of a case to each of several others.

    image: float32 [N], the largest correlation over all flips and shifts.
    mask: float [N], the largest Dice over them; that of shares p and q, 2 pq / (pp + qq) with sums over all places, as
        a mean over the labels that either mask has.
    embedding: float32 [N], minus the Euclidean distance; None without a judge.
    """

    image: NDArray[np.floating]
    mask: NDArray[np.floating]
    embedding: NDArray[np.floating] | None

    def nearest(self, count: int) -> "Nearest":
        """Among the first `count` of the others."""
        image, mask = self.image[:count], self.mask[:count]
        return Nearest(
            image_correlation=float(image.max()),
            image_case=int(image.argmax()),
            mask_dice=float(mask.max()),
            mask_case=int(mask.argmax()),
            embedding_distance=None if self.embedding is None else -float(self.embedding[:count].max()),
        )


class Nearest(NamedTuple):
    """Likeness of a case to its nearest training cases; each measure has a nearest one of its own.

    image_correlation, mask_dice: The largest of `Likeness`.
    image_case, mask_case: Their place among the training cases.
    embedding_distance: The smallest Euclidean distance; None without a judge.
    """

    image_correlation: float
    image_case: int
    mask_dice: float
    mask_case: int
    embedding_distance: float | None


def describe_case(
    image: NDArray[np.float32], mask: NDArray[np.integer], embedding: NDArray[np.float32] | None = None
) -> CaseFingerprint:
    """The fingerprint of one case.

    Args:
        image: [D, h, w] in any unit.
        mask: [D, h, w], contiguous ids.
        embedding: [C], mean features of the image by a judge.
    """
    shares = {int(label): _averaged(mask == label).astype(np.float16) for label in np.unique(mask) if label}
    return CaseFingerprint(_averaged(image), shares, embedding)


def likeness(case: CaseFingerprint, others: Sequence[CaseFingerprint]) -> Likeness:
    """Compare a case with others, under the 8 combinations of flips and shifts of up to MAX_SHIFT.

    What is compared is the inner part of each other case, with every window of that size of the flipped case.

    Args:
        case: Synthetic, or held out.
        others: At least one case.
    """
    return Likeness(
        image=_correlations(case.image, [each.image for each in others]),
        mask=_dice(case.shares, [each.shares for each in others]),
        embedding=_nearness(case, others),
    )


def nearest(case: CaseFingerprint, train: Sequence[CaseFingerprint]) -> Nearest:
    """Look for a case among the training cases; at least one."""
    return likeness(case, train).nearest(len(train))


def threshold(held_out: NDArray[np.float64]) -> float:
    """The similarity that 99 % of new cases stay below.

    It is the quantile that the next new case exceeds with a probability of 1 %. With fewer than 99 cases it is their
    largest, which the next one exceeds with a probability of 1 / (cases + 1).
    """
    return float(np.quantile(held_out, 1 - PERCENTILE, method="weibull"))


def _averaged(volume: NDArray[Any]) -> NDArray[np.float32]:
    """A volume [D, h, w] on the grid; a place holds the mean of the voxels that it touches."""
    import torch
    from torch.nn.functional import adaptive_avg_pool3d

    channel = torch.from_numpy(volume.astype(np.float32))[None]
    averaged: NDArray[np.float32] = adaptive_avg_pool3d(channel, GRID)[0].numpy()
    return averaged


def _nearness(case: CaseFingerprint, others: Sequence[CaseFingerprint]) -> NDArray[np.floating] | None:
    found = [each.embedding for each in others if each.embedding is not None]
    if case.embedding is None or len(found) < len(others):
        return None
    return -np.linalg.norm(np.stack(found) - case.embedding, axis=1)


def _correlations(image: NDArray[np.float32], train: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The largest correlation over all transforms, per training case."""
    ours = _standardised(np.stack(list(_transforms(image))))
    theirs = _standardised(np.stack([_inner(each) for each in train]))
    return (ours @ theirs.T).max(axis=0)


def _dice(
    shares: dict[int, NDArray[np.float16]], train: Sequence[dict[int, NDArray[np.float16]]]
) -> NDArray[np.floating]:
    """The largest Dice over all transforms, per training case; masks without any label are equal."""
    nothing = np.zeros((GRID, GRID, GRID), dtype=np.float16)
    total, num_labels = np.zeros((2, _NUM_TRANSFORMS, len(train)), dtype=np.float32)
    for label in sorted({*shares, *itertools.chain(*train)}):
        ours = np.stack(list(_transforms(shares.get(label, nothing)))).astype(np.float32)
        theirs = np.stack([_inner(each.get(label, nothing)) for each in train]).astype(np.float32)
        sizes = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1)
        total += 2 * (ours @ theirs.T) / np.where(sizes > 0, sizes, 1)
        num_labels += sizes > 0
    return np.where(num_labels > 0, total / np.maximum(num_labels, 1), 1.0).max(axis=0)


def _transforms(volume: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Every window of the inner size of every flip, as a vector."""
    starts = range(2 * MAX_SHIFT + 1)
    for flipped in itertools.product((False, True), repeat=3):
        turned = np.flip(volume, tuple(axis for axis in range(3) if flipped[axis]))
        for at in itertools.product(starts, repeat=3):
            yield turned[tuple(slice(start, start + _INNER) for start in at)].ravel()


def _inner(volume: NDArray[Any]) -> NDArray[Any]:
    return volume[(slice(MAX_SHIFT, MAX_SHIFT + _INNER),) * 3].ravel()


def _standardised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1; a constant row becomes 0."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
