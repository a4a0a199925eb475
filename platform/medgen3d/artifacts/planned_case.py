"""A synthetic case before it is drawn: its name, size and random streams follow from a seed and its number alone.

Bulk synthesis and the HTTP service both plan by it, so that one seed means the same cases to either. In bulk synthesis
`plan.parquet` holds a row per case.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medgen3d.config.experiment import CHAIN
from medgen3d.core.seeds import stream_seed

Shape = tuple[int, int, int]


class PlannedCase(BaseModel):
    """A case before it is drawn.

    shape: (D, h, w).
    seed, stream: The case draws what number `stream` of a run with this seed draws.
    redraw: 0 for the first draw; a redraw has streams of its own.
    spacing_mm: Voxel size (D, H, W) of the files; None: that of the training data.
    style: Images with the same number share their appearance; None: drawn from the case's own stream.
    mask: File with a mask that is given as a whole.
    partial_mask: File with a mask of which `known_slices` are given.
    targets: What the mask shall be like, such as `Anterior.volume_ml > 1.2`.
    best_of: Masks that are drawn at most to meet the targets.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    case_id: str
    shape: Shape
    seed: int
    stream: int
    redraw: int = 0
    spacing_mm: tuple[float, float, float] | None = None
    style: int | None = None
    mask: str | None = None
    partial_mask: str | None = None
    known_slices: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    best_of: int = 1

    @property
    def seeds(self) -> dict[str, int]:
        """One per stage."""
        return {stage: stream_seed(self.seed, "case", self.stream, stage, self.redraw) for stage in CHAIN}

    def mask_seed(self, candidate: int) -> int:
        """Of one of the masks that are drawn to meet the targets; the first is drawn like that of any case."""
        names = () if candidate == 0 else ("candidate", candidate)
        return stream_seed(self.seed, "case", self.stream, CHAIN[0], self.redraw, *names)


def plan_case(run_seed: int, number: int, shapes: Sequence[tuple[int, int, int, int]]) -> PlannedCase:
    """Plan the case with this number.

    Args:
        run_seed: The seed S that a user sets.
        number: 0 or more.
        shapes: (D, h, w, count) of the training cases, from which the case's size is drawn.
    """
    rng = np.random.default_rng(stream_seed(run_seed, "case", number, "shape"))
    ordered = sorted(shapes)
    counts = np.array([count for *_, count in ordered])
    depth, height, width, _ = ordered[rng.choice(len(ordered), p=counts / counts.sum())]
    return PlannedCase(
        number=number, case_id=case_id_of(number), shape=(depth, height, width), seed=run_seed, stream=number
    )


def case_id_of(number: int) -> str:
    """The name of a synthetic case."""
    return f"syn_{number:05d}"
