"""What is drawn: a case's name, size and random streams follow from the run's seed and the case's number alone.

Cases advance in batches of fixed width: batch i holds the numbers from i x width on, whatever was asked for. The cases
beside it in a batch may change the last bits of a case's numbers, so its neighbours must not depend on how many cases
are wanted, nor on which of them exist already. What is drawn and not wanted is dropped.
"""

from collections.abc import Collection, Sequence

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


def numbers_in(batch: int, width: int) -> range:
    """The case numbers of a batch."""
    return range(batch * width, (batch + 1) * width)


def wanted_by_batch(count: int, width: int, done: Collection[int]) -> dict[int, list[int]]:
    """Which batches are to be drawn for cases 0..count - 1, and which of their cases are not done yet."""
    missing = {
        batch: [number for number in numbers_in(batch, width) if number < count and number not in done]
        for batch in range(-(-count // width))
    }
    return {batch: numbers for batch, numbers in missing.items() if numbers}
