"""The options of training: steps, optimiser, augmentation and checkpoints of every stage."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from medgen3d.config.section import ConfigSection, NonNegativeInt, Share


class Augmentation(ConfigSection):
    """How training cases are changed whenever they are visited; nothing unless asked for."""

    bend_mm: Annotated[float, Field(ge=0)] = 0.0
    """Volumes are bent by a smooth random field with displacements of this size [mm], for few cases."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Volumes are turned by at most this angle about any axis [degrees]."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Volumes are scaled by 1 plus or minus at most this share."""
    flip_axes: tuple[Literal["z", "y", "x"], ...] = ()
    """Axes along which every second volume is flipped; x is left and right, which only symmetric anatomy allows."""
    intensity_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Contrast changes by at most this share, brightness by half of it."""

    @property
    def moves_voxels(self) -> bool:
        """Whether shapes change, and not intensities alone."""
        return bool(self.bend_mm or self.rotation_degrees or self.zoom or self.flip_axes)


class StageTraining(Augmentation):
    """How one stage is trained."""

    steps: PositiveInt = 3000
    """Optimiser steps."""
    batch_size: PositiveInt = 16
    """Examples per worker and step."""
    learning_rate: PositiveFloat = 3e-4
    """Peak of the schedule: linear warm-up, then cosine to 0."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam's memory of gradients and of their squares."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: NonNegativeInt = 100
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the averaged weights that survives a step."""
    checkpoint_every: PositiveInt = 500
    preview_every: PositiveInt = 1000
    log_every: PositiveInt = 20
    """Steps between checkpoints, preview pictures and logged losses."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device has instructions for it, fp32 elsewhere."""
    loader_workers: NonNegativeInt = 0
    """Processes that cut examples beside each worker; 0 cuts them in the worker."""


class AdversarialTraining(StageTraining):
    """The same choices with the defaults that suit a generator and its discriminators."""

    steps: PositiveInt = 1500
    batch_size: PositiveInt = 8
    learning_rate: PositiveFloat = 2e-4
    betas: tuple[Share, Share] = (0.5, 0.999)


class SegmenterTraining(StageTraining):
    """The same choices with the defaults that suit a segmenter."""

    steps: PositiveInt = 600
    batch_size: PositiveInt = 2
    learning_rate: PositiveFloat = 1e-3
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99


class TrainingConfig(ConfigSection):
    """How each stage is trained."""

    mask_generator: StageTraining = StageTraining()
    image_sequence_generator: AdversarialTraining = AdversarialTraining()
    refiner: StageTraining = StageTraining()
    segmenter: SegmenterTraining = SegmenterTraining()
