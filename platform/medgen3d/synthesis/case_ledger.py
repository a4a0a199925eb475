"""The ledger of a run: the status of every case, and the batches to draw next, which follow from it.

It begins with what the manifest says and then records every batch that comes back, or is lost with its process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medgen3d.artifacts.case_status import CaseStatus, CaseStatuses
from medgen3d.artifacts.manifest import ManifestRow

MAX_LOSSES = 2
"""How often the processes that draw a batch may die before its cases are drawn alone, or a lone case is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """Cases to draw together.

    numbers: All cases of the batch.
    wanted: Those whose files are to be written; the others only give the batch its width.
    redraw: Number of the draw, the same for all cases: 0 for the first.
    note: Why a case is drawn alone although it was not rejected; empty where that is not so.
    """

    numbers: tuple[int, ...]
    wanted: tuple[int, ...]
    redraw: int = 0
    note: str = ""


@dataclass(kw_only=True, slots=True)
class CaseLedger:
    """Case by case what is done.

    statuses, redraws: By case number.
    rejections: Number -> reason -> how often, of cases that a gate has rejected.
    width: Of a batch.
    max_redraws: How often a case that is rejected is drawn again.
    """

    statuses: CaseStatuses
    redraws: NDArray[np.int16]
    width: int
    max_redraws: int
    rejections: dict[int, dict[str, int]] = field(default_factory=dict)
    _losses: dict[BatchSpec, int] = field(default_factory=dict)
    _alone: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, table: pa.Table | None, count: int, width: int, max_redraws: int) -> "CaseLedger":
        """What a manifest's columns say of cases 0..count - 1."""
        ledger = cls(
            statuses=CaseStatuses(count),
            redraws=np.zeros(count, np.int16),
            width=width,
            max_redraws=max_redraws,
        )
        if table is None:
            return ledger
        columns = (table[name].to_pylist() for name in ("number", "status", "redraws", "rejections"))
        for number, status, redraws, rejections in zip(*columns, strict=True):
            if number < count:
                ledger._record(number, CaseStatus(status), redraws, dict(rejections or []))
        ledger._reopen()
        return ledger

    def _record(self, number: int, status: CaseStatus, redraws: int, rejections: dict[str, int]) -> None:
        self.statuses[number], self.redraws[number] = status, redraws
        self.rejections.pop(number, None)
        if rejections:
            self.rejections[number] = rejections

    def _reopen(self) -> None:
        """Draw cases again that were given up after fewer redraws than are allowed now."""
        for number in self.rejections:
            if self.statuses[number] == CaseStatus.FAILED and self.redraws[number] < self.max_redraws:
                self.statuses[number] = CaseStatus.REJECTED

    def record(self, rows: Iterable[ManifestRow]) -> None:
        """Record what became of cases that were drawn."""
        for row in rows:
            self._record(row.number, row.status, row.redraws, row.rejections)

    def record_loss(self, batch: BatchSpec) -> bool:
        """Record that a batch did not come back, since its processes died. True: its case is to be given up now."""
        losses = self._losses[batch] = self._losses.get(batch, 0) + 1
        if losses < MAX_LOSSES:
            return False
        if len(batch.numbers) > 1:
            self._alone.update(batch.wanted)
            return False
        return True

    def record_damage(self, numbers: Iterable[int]) -> None:
        """Record that the files of cases are not what was written."""
        for number in numbers:
            self.statuses[number] = CaseStatus.DAMAGED

    def retry_failed(self) -> None:
        """Begin anew with all cases that were given up."""
        for number in np.flatnonzero(self.statuses.are(CaseStatus.FAILED)).tolist():
            self._record(number, CaseStatus.MISSING, redraws=0, rejections={})

    @property
    def missing(self) -> NDArray[np.intp]:
        """Numbers of the cases that are neither done nor given up."""
        return self.statuses.open

    def count(self, status: CaseStatus) -> int:
        """How many cases have this status."""
        return int(np.count_nonzero(self.statuses.are(status)))

    def next_batches(self, most: int) -> list[BatchSpec]:
        """The batches to draw next, at most so many: redraws first, and cases whose batch was lost at the very end.

        Of the latter only one, since a case that kills its process would take others that are drawn meanwhile with it.
        """
        trusted = list(islice((batch for batch in self._open_batches() if not batch.note), most))
        return trusted or list(islice(self._open_batches(), 1))

    def _open_batches(self) -> Iterator[BatchSpec]:
        missing = self.missing
        is_rejected = self.statuses.are(CaseStatus.REJECTED)[missing]
        redraws = self.redraws[missing] + is_rejected
        for number, redraw in zip(missing[redraws > 0].tolist(), redraws[redraws > 0].tolist(), strict=True):
            yield BatchSpec(numbers=(number,), wanted=(number,), redraw=redraw)
        fresh = missing[redraws == 0]
        for place in np.unique(fresh // self.width).tolist():
            yield from self._split_batch(place, _of_batch(fresh, place, self.width).tolist())

    def _split_batch(self, place: int, wanted: list[int]) -> Iterator[BatchSpec]:
        """A batch by its place, and by themselves those of its cases that are to be drawn alone."""
        together = tuple(number for number in wanted if number not in self._alone)
        if together:
            yield BatchSpec(numbers=tuple(range(place * self.width, (place + 1) * self.width)), wanted=together)
        for number in wanted:
            if number in self._alone:
                note = "drawn alone, since its batch killed the processes that drew it"
                yield BatchSpec(numbers=(number,), wanted=(number,), note=note)


def _of_batch(numbers: NDArray[np.intp], place: int, width: int) -> NDArray[np.intp]:
    """The numbers among sorted ones that belong to the batch at a place."""
    first, end = np.searchsorted(numbers, (place * width, (place + 1) * width))
    return numbers[first:end]
