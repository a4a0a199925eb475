"""What is done of a set and what is next: told by the manifest at the start, then by every batch that comes back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medgen3d.artifacts.manifest import ManifestRow

MISSING, DONE, FAILED, REJECTED, DAMAGED = range(5)
_BY_NAME = {"done": DONE, "failed": FAILED, "rejected": REJECTED}
MAX_LOSSES = 2
"""So often a batch, and then a case, may kill the processes that draw it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """Cases to draw together.

    numbers: All cases of the batch.
    wanted: Those that are missing.
    redraw: Of all of them.
    note: Why a case is drawn without its batch; empty if it is not, or was rejected before, when every case is.
    """

    numbers: tuple[int, ...]
    wanted: tuple[int, ...]
    redraw: int = 0
    note: str = ""


@dataclass(kw_only=True, slots=True)
class CaseLedger:
    """Case by case what is done.

    status, redraws: Per case number.
    rejections: Number -> reason -> how often, of cases that a gate has rejected.
    width: Of a batch.
    max_redraws: How often a case that is rejected is drawn again.
    """

    status: NDArray[np.int8]
    redraws: NDArray[np.int16]
    width: int
    max_redraws: int
    rejections: dict[int, dict[str, int]] = field(default_factory=dict)
    _losses: dict[BatchSpec, int] = field(default_factory=dict)
    _alone: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, table: pa.Table | None, count: int, width: int, max_redraws: int) -> "CaseLedger":
        """What a manifest's columns say of cases 0..count - 1."""
        standing = cls(
            status=np.full(count, MISSING, np.int8),
            redraws=np.zeros(count, np.int16),
            width=width,
            max_redraws=max_redraws,
        )
        if table is None:
            return standing
        numbers = table["number"].to_numpy()
        known = numbers < count
        status = np.array([_BY_NAME[name] for name in table["status"].to_pylist()], np.int8)
        standing.status[numbers[known]] = status[known]
        standing.redraws[numbers[known]] = table["redraws"].to_numpy()[known]
        for place in np.flatnonzero(known & (status != DONE)):
            counts = dict(table["rejections"][int(place)].as_py() or [])
            if counts:
                standing.rejections[int(numbers[place])] = counts
        standing._reopen()
        return standing

    def _reopen(self) -> None:
        """Cases that were given up, but may be drawn more often now."""
        for number, counts in self.rejections.items():
            if self.status[number] == FAILED and counts and self.redraws[number] < self.max_redraws:
                self.status[number] = REJECTED

    def take(self, rows: Iterable[ManifestRow]) -> None:
        """What came of cases that were drawn."""
        for row in rows:
            self.status[row.number], self.redraws[row.number] = _BY_NAME[row.status], row.redraws
            self.rejections.pop(row.number, None)
            if row.rejections:
                self.rejections[row.number] = row.rejections

    def lose(self, item: BatchSpec) -> bool:
        """An item did not come back, since its workers died. True: it is to be given up now."""
        losses = self._losses[item] = self._losses.get(item, 0) + 1
        if losses < MAX_LOSSES:
            return False
        if len(item.numbers) > 1:
            self._alone.update(item.wanted)
            return False
        return True

    def damaged(self, numbers: Iterable[int]) -> None:
        """Cases whose files are not what was written: they are drawn again as they were."""
        self.status[list(numbers)] = DAMAGED

    def retry(self) -> None:
        """Begin anew with all cases that were given up."""
        failed = np.flatnonzero(self.status == FAILED)
        self.status[failed], self.redraws[failed] = MISSING, 0
        for number in failed:
            self.rejections.pop(int(number), None)

    @property
    def missing(self) -> NDArray[np.intp]:
        """Numbers of the cases that are neither done nor given up."""
        return np.flatnonzero(~np.isin(self.status, (DONE, FAILED)))

    def count(self, status: int) -> int:
        """How many cases are so."""
        return int(np.count_nonzero(self.status == status))

    def next_items(self, most: int) -> list[BatchSpec]:
        """What to draw now, redraws first: at most so many items. Suspects come last, each by itself."""
        trusted = list(islice((item for item in self._items() if not item.note), most))
        return trusted or list(islice(self._items(), 1))  # beside a case that kills its process others would be lost

    def _items(self) -> Iterator[BatchSpec]:
        missing = self.missing
        levels = np.where(self.status[missing] == REJECTED, self.redraws[missing] + 1, self.redraws[missing])
        for number, redraw in zip(missing[levels > 0].tolist(), levels[levels > 0].tolist(), strict=True):
            yield BatchSpec(numbers=(number,), wanted=(number,), redraw=redraw)
        fresh = missing[levels == 0]
        for batch in np.unique(fresh // self.width).tolist():
            yield from self._batch(batch, _slice_of(fresh, batch, self.width).tolist())

    def _batch(self, batch: int, wanted: list[int]) -> Iterator[BatchSpec]:
        together = tuple(number for number in wanted if number not in self._alone)
        if together:
            yield BatchSpec(numbers=tuple(range(batch * self.width, (batch + 1) * self.width)), wanted=together)
        for number in wanted:
            if number in self._alone:
                note = "drawn alone, since its batch killed the processes that drew it"
                yield BatchSpec(numbers=(number,), wanted=(number,), note=note)


def _slice_of(numbers: NDArray[np.intp], batch: int, width: int) -> NDArray[np.intp]:
    """The numbers of a batch among sorted numbers."""
    first, end = np.searchsorted(numbers, (batch * width, (batch + 1) * width))
    return numbers[first:end]
