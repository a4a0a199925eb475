"""A synthetic case before it is drawn: its name, size and random streams follow from a seed and its number alone.

Bulk synthesis and the HTTP service both plan by it, so that one seed means the same cases to either.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medgen3d.config.experiment import CHAIN
from medgen3d.core.seeds import stream_seed

_FIRST_DRAW = 0

Shape = tuple[int, int, int]


class PlannedCase(BaseModel):
    """A case before it is drawn. shape: (D, h, w); seeds: one per stage."""

    model_config = ConfigDict(frozen=True)

    number: int
    case_id: str
    shape: Shape
    seeds: dict[str, int]


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
        number=number,
        case_id=f"syn_{number:05d}",
        shape=(depth, height, width),
        seeds={stage: stream_seed(run_seed, "case", number, stage, _FIRST_DRAW) for stage in CHAIN},
    )
