"""The plan of a set: every case before it is drawn, from a number of cases or from a user's plan file.

It is written as `plan.parquet`, a row per case, before anything is drawn. What runs draw follows from it and from the
manifest alone.

Cases advance in batches of fixed width: batch i holds the numbers from i x width on, whatever was asked for. The
neighbours of a case in its batch may change the last bits of its voxels, so they must not depend on how many cases are
wanted, nor on which of them exist already. Neighbours that are not wanted are drawn as far as they matter.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from medgen3d.artifacts.planned_case import PlannedCase, Shape, plan_case
from medgen3d.artifacts.storage import Folder

PLAN = "plan.parquet"
_ROWS_AT_A_TIME = 10_000
COLUMNS = pa.schema(
    [
        ("number", pa.int64()),
        ("case_id", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("seed", pa.int64()),
        ("stream", pa.int64()),
        ("spacing_mm", pa.list_(pa.float64())),
        ("style", pa.int64()),
        ("mask", pa.string()),
        ("partial_mask", pa.string()),
        ("known_slices", pa.list_(pa.int32())),
        ("targets", pa.list_(pa.string())),
        ("best_of", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisPlan:
    """The cases of a set by number.

    count: How many there are.
    seed: Of the run.
    shapes: (D, h, w, number of cases) of the training data.
    rows: What a plan file says of every case; None: nothing is said but the number of cases.
    digest: Of the plan file's content; None without one.
    given: (D, h, w) of the masks that are given for the whole set, in the order of the cases; None: none are.
    """

    count: int
    seed: int
    shapes: Sequence[tuple[int, int, int, int]]
    rows: pa.Table | None = None
    digest: str | None = None
    given: tuple[Shape, ...] | None = None

    def case(self, number: int) -> PlannedCase:
        """The case with this number; beyond the last, those that only fill a batch."""
        if self.rows is not None and number < self.count:
            row = self.rows.slice(number, 1).to_pylist()[0]
            return PlannedCase.model_validate({key: value for key, value in row.items() if value is not None})
        planned = plan_case(self.seed, number, self.shapes)
        return planned.model_copy(update={"shape": self.given[number]}) if self.given else planned

    def __iter__(self) -> Iterator[PlannedCase]:
        return (self.case(number) for number in range(self.count))


def as_rows(cases: Sequence[PlannedCase]) -> pa.Table:
    """Cases as the columns of `plan.parquet`."""
    return pa.Table.from_pylist([case.model_dump(exclude={"redraw"}) for case in cases], schema=COLUMNS)


def write_plan(folder: Folder, plan: SynthesisPlan) -> None:
    """Write `plan.parquet`; a longer one of the same set, which is there already, is left.

    Raises:
        OSError: The folder cannot be written.
    """
    if folder.exists(PLAN) and pq.read_metadata(io.BytesIO(folder.read(PLAN))).num_rows >= plan.count:
        return
    content = io.BytesIO()
    with pq.ParquetWriter(content, COLUMNS, compression="zstd") as writer:
        for first in range(0, plan.count, _ROWS_AT_A_TIME):
            numbers = range(first, min(first + _ROWS_AT_A_TIME, plan.count))
            writer.write_table(as_rows([plan.case(number) for number in numbers]))
    folder.write(PLAN, content.getvalue())
