"""Batches of cases on their way through the chain, and how one becomes a row that travels between workers, and back.

A row is a piece of JSON and two flat arrays: Arrow stores them as they are, without pickle.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.planned_case import PlannedCase

Row = dict[str, Any]
GATES, WRITTEN = "gates", "written"
"""Names of the steps after the stages, for whoever watches a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InFlightCase:
    """A case of which some stages are drawn.

    mask: [D, h, w], contiguous ids; zeros until it is drawn.
    image: float32 [D, h, w] in [-1, 1]; zeros until it is drawn.
    failure: Why the case cannot be drawn; later stages leave it alone.
    rejections: Reason -> sentence of the gates that this draw did not pass; later stages leave it alone.
    scores: Of the gates.
    earlier_rejections: Reason -> how often former draws of the case were rejected for it.
    note: What is unusual about how it was drawn; else empty.
    """

    plan: PlannedCase
    mask: NDArray[np.integer]
    image: NDArray[np.float32]
    failure: str = ""
    rejections: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    earlier_rejections: dict[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it neither failed nor was rejected so far."""
        return not self.failure and not self.rejections

    def rejected(self, reason: str, sentence: str) -> "InFlightCase":
        """The case with one more reason not to accept it."""
        return replace(self, rejections=self.rejections | {reason: sentence})


_SCALARS = ("failure", "rejections", "scores", "earlier_rejections", "note")
"""Fields of a case that travel as JSON, besides its plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InFlightBatch:
    """Cases that advance together.

    key: Its place among the batches of its round.
    wanted: Numbers of the cases that are to be written; the others only give the batch its width, and leave once it
        no longer matters.
    error: Why nothing more can be drawn at all, in a sentence.
    skipped: It was not begun, since the run is to end.
    """

    key: int
    wanted: list[int]
    cases: list[InFlightCase]
    error: str = ""
    skipped: bool = False


def begin(plans: list[PlannedCase]) -> list[InFlightCase]:
    """Cases of which nothing is drawn yet."""
    return [
        InFlightCase(plan=plan, mask=np.zeros(plan.shape, np.uint8), image=np.zeros(plan.shape, np.float32))
        for plan in plans
    ]


def source_row(batch: InFlightBatch) -> Row:
    """Cases of which nothing is drawn yet: no arrays, so that a plan of many thousand cases stays small."""
    return {"work": _described(batch)}


def to_row(batch: InFlightBatch) -> Row:
    """Pack cases; masks travel as uint16."""
    return {
        "work": _described(batch),
        "masks": np.concatenate([case.mask.astype(np.uint16).ravel() for case in batch.cases]),
        "images": np.concatenate([case.image.ravel() for case in batch.cases]),
    }


def from_row(row: Row) -> InFlightBatch:
    """Unpack what `source_row` or `to_row` packed; the arrays may be read-only."""
    content = json.loads(row["work"])
    plans = [PlannedCase.model_validate(case["plan"]) for case in content["cases"]]
    cases = begin(plans)
    if "masks" in row:
        pieces = zip(cases, _split(row["masks"], plans), _split(row["images"], plans), strict=True)
        cases = [replace(case, mask=mask, image=image) for case, mask, image in pieces]
    cases = [
        replace(case, **{name: described[name] for name in _SCALARS})
        for case, described in zip(cases, content["cases"], strict=True)
    ]
    return InFlightBatch(**content | {"cases": cases})


def _described(batch: InFlightBatch) -> str:
    cases = [
        {"plan": case.plan.model_dump(exclude_defaults=True)} | {name: getattr(case, name) for name in _SCALARS}
        for case in batch.cases
    ]
    return json.dumps(
        {"key": batch.key, "wanted": batch.wanted, "cases": cases, "error": batch.error, "skipped": batch.skipped}
    )


def _split(flat: NDArray[Any], plans: list[PlannedCase]) -> list[NDArray[Any]]:
    sizes = [int(np.prod(plan.shape)) for plan in plans]
    pieces = np.split(flat, np.cumsum(sizes)[:-1])
    return [piece.reshape(plan.shape) for piece, plan in zip(pieces, plans, strict=True)]
