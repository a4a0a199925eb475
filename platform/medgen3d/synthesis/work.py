"""Cases on their way through the chain, and a batch of them as a row between workers.

A row is a few words of JSON and two flat arrays: Arrow stores them as they are, without pickle.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.planned_case import PlannedCase

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseInWork:
    """A case of which some stages are drawn.

    mask: [D, h, w], contiguous ids; zeros until it is drawn.
    image: float32 [D, h, w] in [-1, 1]; zeros until it is drawn.
    failure: Why the case cannot be drawn; later stages leave it alone.
    note: What is unusual about how it was drawn.
    """

    plan: PlannedCase
    mask: NDArray[np.integer]
    image: NDArray[np.float32]
    failure: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchInWork:
    """Cases that advance together.

    wanted: Numbers of the cases that are to be written; the others only keep the batch's width.
    error: Why nothing more can be drawn at all, in a sentence.
    """

    batch: int
    wanted: list[int]
    cases: list[CaseInWork]
    error: str = ""


def begin(plans: list[PlannedCase]) -> list[CaseInWork]:
    """Cases of which nothing is drawn yet."""
    return [
        CaseInWork(plan=plan, mask=np.zeros(plan.shape, np.uint8), image=np.zeros(plan.shape, np.float32))
        for plan in plans
    ]


def source_row(batch: int, wanted: list[int], plans: list[PlannedCase]) -> Row:
    """A batch of which nothing is drawn yet: no arrays, so that a plan of many thousand cases stays small."""
    return {"work": _described(BatchInWork(batch=batch, wanted=wanted, cases=begin(plans)))}


def to_row(work: BatchInWork) -> Row:
    """Pack a batch; masks travel as uint16."""
    return {
        "work": _described(work),
        "masks": np.concatenate([case.mask.astype(np.uint16).ravel() for case in work.cases]),
        "images": np.concatenate([case.image.ravel() for case in work.cases]),
    }


def from_row(row: Row) -> BatchInWork:
    """Unpack what `source_row` or `to_row` packed; the arrays may be read-only."""
    content = json.loads(row["work"])
    cases = begin([PlannedCase.model_validate(case["plan"]) for case in content["cases"]])
    if "masks" in row:
        pieces = zip(cases, _split(row["masks"], cases), _split(row["images"], cases), strict=True)
        cases = [replace(case, mask=mask, image=image) for case, mask, image in pieces]
    told = [
        replace(case, failure=words["failure"], note=words["note"])
        for case, words in zip(cases, content["cases"], strict=True)
    ]
    return BatchInWork(batch=content["batch"], wanted=content["wanted"], cases=told, error=content["error"])


def _described(work: BatchInWork) -> str:
    cases = [{"plan": case.plan.model_dump(), "failure": case.failure, "note": case.note} for case in work.cases]
    return json.dumps({"batch": work.batch, "wanted": work.wanted, "cases": cases, "error": work.error})


def _split(flat: NDArray[Any], cases: list[CaseInWork]) -> list[NDArray[Any]]:
    ends = np.cumsum([case.mask.size for case in cases])
    pieces = np.split(flat, ends[:-1])
    return [piece.reshape(case.plan.shape) for piece, case in zip(pieces, cases, strict=True)]
