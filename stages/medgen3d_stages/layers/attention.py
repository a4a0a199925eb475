"""The bound on what a network attends over: the work of attention grows with the square of the positions."""

from collections.abc import Iterable, Sequence

from medgen3d_stages.layers.padding import padded_side

MOST_POSITIONS = 4096
"""Positions that a U-Net attends over at most, such as 64 x 64."""


def check_attention(
    stage: str, attention_levels: Sequence[bool], patch: int, planes: Iterable[tuple[int, int]]
) -> None:
    """Refuse options under which a level would attend over too many positions.

    Args:
        stage: For the sentence.
        attention_levels: Of MONAI's diffusion U-Net, whose lowest level attends in any case.
        patch: Pixels along each axis that are one position of the first level.
        planes: (height, width) that the network will see [pixels].

    Raises:
        ValueError: With a sentence that names the options.
    """
    lowest = len(attention_levels) - 1
    first = min([level for level, attends in enumerate(attention_levels) if attends] + [lowest])
    for height, width in planes:
        multiple = patch * 2**lowest
        rows, columns = (padded_side(side, multiple) // (patch * 2**first) for side in (height, width))
        if rows * columns > MOST_POSITIONS:
            raise ValueError(
                f"{stage}: level {first + 1} of {lowest + 1} would attend over {rows} x {columns} positions of a "
                f"plane of {height} x {width} pixels, at most {MOST_POSITIONS}; use the preset cluster, or a larger "
                f"{stage}.patch, more levels of channels, or attention at lower levels alone"
            )
