"""The contract between stages and platform: the page to read first.

A stage knows how its networks are built, how a training example is cut from a labelled volume, what each turn of the
training loop minimises, and how a sample is drawn. It never touches a file, a cluster or a registry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Image, Mask, Networks


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """What a stage must know of the data before it has seen any.

    num_labels: K, background included.
    plane: (H, W) to which every slice is padded.
    spacing_mm: Voxel size along (D, H, W).
    max_depth: Largest D of the training set; scales the depth that the mask generator is told.
    """

    num_labels: int
    plane: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    max_depth: int

    def __post_init__(self) -> None:
        if self.num_labels < 2:
            raise ValueError(f"a stage needs at least 2 labels (background and one more), got {self.num_labels}")
        if min(*self.plane, self.max_depth) < 1:
            raise ValueError(
                f"plane and depth must be at least 1 voxel, got plane {self.plane}, depth {self.max_depth}"
            )


class Stage(Protocol):
    """One stage of the chain mask -> image sequence -> refined volume.

    spec: What it was told of the data.
    name: Name of the stage's package.
    turns: The turns of one training step, in order, each with the networks that it trains.
    sampled: The networks that `sample` needs; a bundle holds these, as EMA weights.
    """

    spec: DataSpec
    name: ClassVar[str]
    turns: ClassVar[dict[str, tuple[str, ...]]]
    sampled: ClassVar[tuple[str, ...]]

    def build(self) -> Networks:
        """Fresh networks; their initial weights come from torch's global generator."""
        ...

    def cut(self, example: Example, rng: np.random.Generator) -> Batch:
        """One training example, without the batch axis, from one volume. All examples have the same shapes."""
        ...

    def loss(
        self, turn: str, networks: Networks, batch: Batch, rng: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        """The named losses of one turn; `total` is what is minimised.

        Args:
            turn: One of `turns`.
            networks: As built; only those of the turn receive gradients.
            batch: Examples stacked along a new first axis, on the networks' device.
            rng: CPU generator, the only source of randomness.
            progress: Share of the training that is done, 0 to 1, for losses that are phased in.
        """
        ...

    def sample(self, networks: Networks, inputs: list[Any], generators: list[torch.Generator]) -> list[Any]:
        """Draw one sample per item of `inputs`, each from its own CPU generator.

        An item's result does not depend on its neighbours (to float tolerance).
        """
        ...

    def preview(self, networks: Networks, example: Example, generator: torch.Generator) -> tuple[Image, Mask]:
        """What a sample looks like: (image, mask) [D, h, w] that has the size, or the mask, of a real volume.

        A stage that makes no image shows a grey one.
        """
        ...


class SampleRun(Protocol):
    """One sample on its way through a stage.

    done, total: Units of work (a slice at a denoising step, a slice, or a step), for whoever shows progress.
    rows: Rows that its next step takes of a device batch; 0 once it is finished.
    """

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def result(self) -> Any:
        """The sample, as `Stage.sample` gives it; only of a finished run."""
        ...


class SteppedStage(Stage, Protocol):
    """A stage whose samples advance step by step, so that others can join them and leave them in between.

    `sample` does the same steps with all its items at once.
    """

    def begin(self, networks: Networks, item: Any, generator: torch.Generator) -> SampleRun:
        """A run of one item of `sample`'s inputs, which will advance with these networks.

        Raises:
            ValueError: With a sentence, for what this data set's model cannot draw.
        """
        ...

    def advance(self, networks: Networks, runs: Sequence[Any], width: int | None = None) -> None:
        """Take each of these unfinished runs, begun here, one step further; they need not be at the same step.

        Args:
            networks: As built.
            runs: In any order.
            width: Rows of every device batch; missing ones are filled up. `TrainedStage.advance` chooses 1 on CPUs, so
                that a run's result does not depend on the other runs. None: one batch of as many rows as there are.
        """
        ...
