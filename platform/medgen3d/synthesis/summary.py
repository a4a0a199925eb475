"""What a run of bulk synthesis did, or would do."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from medgen3d.artifacts.manifest import ManifestRow, rows_of
from medgen3d.artifacts.planned_case import PlannedCase, Shape
from medgen3d.artifacts.synthetic_set import MANIFEST, read_columns
from medgen3d.core.errors import DataError
from medgen3d.synthesis.case_ledger import DONE
from medgen3d.synthesis.run import SynthesisRun

if TYPE_CHECKING:
    from medgen3d.synthesis.calibrate import Estimate

_HEAD = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisSummary:
    """What a run did, or in a dry run would do.

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


def summarise(job: SynthesisRun, num_kept: int) -> SynthesisSummary:
    """What the job came to, or, if nothing is drawn yet, what it will come to.

    Args:
        job: After or before it was drawn.
        num_kept: Cases that were there at its beginning.

    Raises:
        DataError: Cases that were drawn are not in the manifest that this machine sees.
    """
    shapes = Counter(case.shape for case in job.plan)
    bytes_per_voxel = np.dtype(job.info.image_dtype).itemsize + np.dtype(job.info.label_table.dtype).itemsize
    told = _told(job)
    return SynthesisSummary(
        out=str(job.folder),
        num_kept=num_kept,
        num_drawn=job.standing.count(DONE) - num_kept,
        failures={row.case_id: row.message for row in told if row.status == "failed"},
        rejections=dict(sum((Counter(row.rejections) for row in told), Counter[str]())),
        shapes=shapes,
        max_bytes=bytes_per_voxel * sum(int(np.prod(shape)) * number for shape, number in shapes.items()),
        head=list(islice(job.plan, _HEAD)),
    )


def _told(job: SynthesisRun) -> list[ManifestRow]:
    """The rows of cases that were rejected or given up."""
    if not job.folder.exists(MANIFEST):
        return []
    _, table = read_columns(job.folder)
    table = table.filter(pc.less(table["number"], job.plan.count))
    if pc.sum(pc.equal(table["status"], "done")).as_py() != job.standing.count(DONE):
        raise DataError(
            f"some files of {job.folder} were written on other machines. Give a folder on storage that every machine "
            "of the cluster sees."
        )
    is_told = pc.or_(pc.not_equal(table["status"], "done"), pc.greater(table["redraws"], 0))
    return rows_of(table.filter(is_told), str(job.folder))
