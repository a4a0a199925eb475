"""The statuses of a synthetic case in one table: meaning, whether it is the end, and what may follow.

Manifests record three of them as text; the other two are known only while a run decides what to draw.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class CaseStatus(StrEnum):
    """What became of a case so far."""

    MISSING = "missing"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusRule:
    """What a status means.

    is_recorded: Whether a manifest holds it.
    is_terminal: Whether a run leaves the case as it is.
    may_become: What may follow; from a terminal status only at the beginning of a run.
    """

    meaning: str
    is_recorded: bool
    is_terminal: bool
    may_become: tuple[CaseStatus, ...]


_AFTER_A_DRAW = (CaseStatus.DONE, CaseStatus.FAILED, CaseStatus.REJECTED)
STATUS_RULES = {
    CaseStatus.MISSING: StatusRule(
        meaning="not drawn yet",
        is_recorded=False,
        is_terminal=False,
        may_become=_AFTER_A_DRAW,
    ),
    CaseStatus.DONE: StatusRule(
        meaning="accepted and written",
        is_recorded=True,
        is_terminal=True,
        may_become=(CaseStatus.DAMAGED,),
    ),
    CaseStatus.FAILED: StatusRule(
        meaning="given up",
        is_recorded=True,
        is_terminal=True,
        may_become=(
            CaseStatus.MISSING,  # asked for with --retry-failed
            CaseStatus.REJECTED,  # more redraws are allowed now
        ),
    ),
    CaseStatus.REJECTED: StatusRule(
        meaning="by a gate, and to be drawn again",
        is_recorded=True,
        is_terminal=False,
        may_become=_AFTER_A_DRAW,
    ),
    CaseStatus.DAMAGED: StatusRule(
        meaning="its files are not what was written, so it is drawn again as it was",
        is_recorded=False,
        is_terminal=False,
        may_become=_AFTER_A_DRAW,
    ),
}
_CODES = {status: code for code, status in enumerate(CaseStatus)}
_STATUSES = tuple(CaseStatus)


class CaseStatuses:
    """The status of every case of a set by number, a byte each: a set may have millions.

    Args:
        count: Number of cases; all are missing at first.
    """

    def __init__(self, count: int) -> None:
        self._codes: NDArray[np.int8] = np.full(count, _CODES[CaseStatus.MISSING], np.int8)

    def __getitem__(self, number: int) -> CaseStatus:
        return _STATUSES[self._codes[number]]

    def __setitem__(self, number: int, status: CaseStatus) -> None:
        """Raises ValueError where the table does not allow it; the same status again is no change."""
        now = self[number]
        if status not in (now, *STATUS_RULES[now].may_become):
            raise ValueError(f"case {number} is {now} and cannot become {status}")
        self._codes[number] = _CODES[status]

    def __len__(self) -> int:
        return len(self._codes)

    def are(self, *statuses: CaseStatus) -> NDArray[np.bool_]:
        """Case by case whether its status is one of these."""
        return np.isin(self._codes, [_CODES[status] for status in statuses])

    @property
    def open(self) -> NDArray[np.intp]:
        """Numbers of the cases whose status is not terminal."""
        return np.flatnonzero(self.are(*(status for status, rule in STATUS_RULES.items() if not rule.is_terminal)))
