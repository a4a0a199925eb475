"""The summary of a run of bulk synthesis: what it did, or would do."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.manifest import ManifestRow, rows_of
from medgen3d.artifacts.planned_case import PlannedCase, Shape
from medgen3d.artifacts.synthetic_set import MANIFEST, read_columns
from medgen3d.core.errors import DataError
from medgen3d.synthesis.run import SynthesisRun

if TYPE_CHECKING:
    from medgen3d.synthesis.calibrate import Estimate

_HEAD = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisSummary:
    """The cases of a run, drawn or, in a dry run, to be drawn.

    num_kept: Cases that were there already, whole and of the same identity.
    num_drawn: Cases that were drawn now and accepted.
    failures: Case id -> sentence, of the cases that are given up.
    rejections: Reason -> draws that were rejected for it.
    shapes: How many of all the cases have each (D, h, w).
    max_bytes: Size of all the cases' files before compression.
    head: The first cases of the plan.
    estimate: Of a dry run.
    """

    out: str
    num_kept: int
    num_drawn: int
    failures: dict[str, str]
    rejections: dict[str, int]
    shapes: Counter[Shape]
    max_bytes: int
    head: list[PlannedCase]
    estimate: "Estimate | None" = None


def summarise(run: SynthesisRun, num_kept: int) -> SynthesisSummary:
    """What the run came to, or, if nothing is drawn yet, what it will come to.

    Args:
        run: After or before it was drawn.
        num_kept: Cases that were there at its beginning.

    Raises:
        DataError: Cases that were drawn are not in the manifest that this machine sees.
    """
    shapes = Counter(case.shape for case in run.plan)
    bytes_per_voxel = np.dtype(run.info.image_dtype).itemsize + np.dtype(run.info.label_table.dtype).itemsize
    rows = _rejected_or_failed(run)
    return SynthesisSummary(
        out=str(run.folder),
        num_kept=num_kept,
        num_drawn=run.ledger.count(CaseStatus.DONE) - num_kept,
        failures={row.case_id: row.message for row in rows if row.status == CaseStatus.FAILED},
        rejections=dict(sum((Counter(row.rejections) for row in rows), Counter[str]())),
        shapes=shapes,
        max_bytes=bytes_per_voxel * sum(int(np.prod(shape)) * number for shape, number in shapes.items()),
        head=list(islice(run.plan, _HEAD)),
    )


def _rejected_or_failed(run: SynthesisRun) -> list[ManifestRow]:
    """The rows of cases that were rejected at least once, or given up."""
    if not run.folder.exists(MANIFEST):
        return []
    _, table = read_columns(run.folder)
    table = table.filter(pc.less(table["number"], run.plan.count))
    if pc.sum(pc.equal(table["status"], CaseStatus.DONE)).as_py() != run.ledger.count(CaseStatus.DONE):
        raise DataError(
            f"some files of {run.folder} were written on other machines. Give a folder on storage that every machine "
            "of the cluster sees."
        )
    is_listed = pc.or_(pc.not_equal(table["status"], CaseStatus.DONE), pc.greater(table["redraws"], 0))
    return rows_of(table.filter(is_listed), str(run.folder))
