"""Label tables: a user's own ids, with gaps and names, against the contiguous ids 0..K-1 that the stages use."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgen3d.core.errors import DataError


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The labels of a data set in the order of their contiguous ids.

    original_ids: The user's ids, ascending; the first is 0, the background.
    names: One name per label, in the same order.
    """

    original_ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.original_ids) != len(self.names):
            raise DataError(f"{len(self.original_ids)} label ids but {len(self.names)} label names")
        if len(self.original_ids) < 2:
            raise DataError("a label table needs the background (id 0) and at least one more label")
        if list(self.original_ids) != sorted(set(self.original_ids)) or self.original_ids[0] != 0:
            raise DataError(
                f"label ids must be different, ascending and begin with background 0, got {self.original_ids}"
            )
        if self.original_ids[-1] > np.iinfo(np.uint16).max:
            raise DataError(f"label id {self.original_ids[-1]} is larger than 65535, the largest that a mask can hold")

    @classmethod
    def from_mapping(cls, names_by_id: dict[int, str]) -> "LabelTable":
        """A table from {original id: name}; a missing background is added."""
        named = {0: "background"} | names_by_id
        ids = tuple(sorted(named))
        return cls(ids, tuple(named[label_id] for label_id in ids))

    def __len__(self) -> int:
        """K, the number of labels including the background."""
        return len(self.original_ids)

    @property
    def by_id(self) -> dict[int, str]:
        return dict(zip(self.original_ids, self.names, strict=True))

    @property
    def titles(self) -> tuple[str, ...]:
        """One name per label for people, all different: where two are alike or one is empty, the ids are added."""
        if _all_different(self.names):
            return self.names
        return tuple(f"{name} ({label_id})" for label_id, name in self.by_id.items())

    @property
    def keys(self) -> tuple[str, ...]:
        """One part of a metric's name per label, all different, without dots and white space."""
        keys = tuple(re.sub(r"[.\s]", "_", name) for name in self.names)
        if _all_different(keys):
            return keys
        return tuple(f"{key}_{label_id}" for label_id, key in zip(self.original_ids, keys, strict=True))

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The smallest unsigned type that holds every original id."""
        return np.uint8 if self.original_ids[-1] <= np.iinfo(np.uint8).max else np.uint16

    @property
    def has_gaps(self) -> bool:
        """Whether the ids are others than 0, 1, 2, ..."""
        return self.original_ids != tuple(range(len(self)))

    def consecutive(self) -> "LabelTable":
        """The same names for the ids 0..K-1."""
        return LabelTable(tuple(range(len(self))), self.names)

    def undeclared(self, mask: NDArray[np.integer]) -> list[int]:
        """The ids in `mask` that the table does not know."""
        return sorted(set(np.unique(mask).tolist()) - set(self.original_ids))

    def to_contiguous(self, mask: NDArray[np.integer]) -> NDArray[np.integer]:
        """Original ids -> 0..K-1, same shape, uint8 (uint16 from 257 labels up).

        Raises:
            DataError: The mask holds an id that is not in the table.
        """
        unknown = self.undeclared(mask)
        if unknown:
            raise DataError(
                f"the mask holds the labels {unknown}, which are not declared; declared are {self.original_ids}"
            )
        dtype = np.uint8 if len(self) <= 256 else np.uint16
        return np.searchsorted(np.asarray(self.original_ids), mask).astype(dtype)

    def to_original(self, mask: NDArray[np.integer]) -> NDArray[np.integer]:
        """0..K-1 -> original ids, same shape, in `dtype`."""
        return np.asarray(self.original_ids, dtype=self.dtype)[mask]


def _all_different(names: Sequence[str]) -> bool:
    return all(names) and len(set(names)) == len(names)
