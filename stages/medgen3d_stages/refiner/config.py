"""Options of the refiner."""

from dataclasses import dataclass
from typing import ClassVar, Literal

Fusion = Literal["alternate", "average", "sequential"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinerConfig:
    """Options of the stage; every value is checked when it is set."""

    SAMPLING_FIELDS: ClassVar[tuple[str, ...]] = (
        "start",
        "end",
        "sampling_steps",
        "guidance",
        "fusion",
        "slice_batch",
    )
    """Options that training never uses: they may be chosen anew when a trained stage is used."""

    channels: tuple[int, ...] = (32, 64, 128)
    """Features per resolution level of the U-Net; each level halves the resolution."""
    num_res_blocks: int = 1
    """Residual blocks per level."""
    attention_levels: tuple[bool, ...] = (False, False, True)
    """Which levels attend over all their positions."""
    patch: int = 1
    """Pixels along each axis of a slice folded into one position of the first level [pixels]."""
    spade_channels: int = 32
    """Hidden features of each SPADE normalisation."""
    crop: int = 48
    """Side of the square cut from a slice in training [pixels]; smaller slices are reflect-padded to it."""
    diffusion_steps: int = 1000
    """Length of the noise schedule, T."""
    mask_dropout: float = 0.2
    """Share of training slices whose mask is taken away, for classifier-free guidance."""
    start: float = 0.3
    """Where refinement starts: share of T to which the incoming volume is noised."""
    end: float = 0.035
    """Where the last denoising step is made: share of T whose noise it takes away at once. Lower keeps more grain."""
    sampling_steps: int = 3
    """Denoising steps from `start` to `end`, evenly spaced in the logarithm of the signal-to-noise ratio."""
    guidance: float = 1.0
    """Weight w of the mask in classifier-free guidance; 1 is off."""
    fusion: Fusion = "alternate"
    """How the three views are combined: a view per step, the mean of three refinements, or one after the other."""
    slice_batch: int = 64
    """Slices denoised at once in sampling [slices]; bounds memory."""

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.attention_levels):
            raise ValueError(
                f"{len(self.channels)} levels of channels but {len(self.attention_levels)} attention_levels"
            )
        if not self.channels or any(width < 1 or width % 8 for width in self.channels):
            raise ValueError(f"channels must be one or more multiples of 8 (group normalisation), got {self.channels}")
        for name in ("num_res_blocks", "patch", "spade_channels", "crop", "slice_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        multiple = self.patch * 2 ** (len(self.channels) - 1)
        if self.crop % multiple:
            raise ValueError(f"crop must be a multiple of {multiple}, got {self.crop}")
        if not 0 <= self.mask_dropout < 1 or not 0 < self.start <= 1:
            raise ValueError(
                f"mask_dropout must lie in [0, 1) and start in (0, 1], got {self.mask_dropout}, {self.start}"
            )
        if self.guidance < 0:
            raise ValueError(f"guidance must not be negative, got {self.guidance}")
        self._check_steps()

    def _check_steps(self) -> None:
        if self.first_step < 0:
            raise ValueError(
                f"start x diffusion_steps must be at least 1 step, got {self.start} x {self.diffusion_steps}; raise one"
            )
        if not 0 <= self.end <= self.start:
            raise ValueError(
                f"end must lie between 0 and start, got end {self.end} and start {self.start}; set refiner.end as well"
            )
        most = self.first_step - self.last_step + 1
        if not 1 <= self.sampling_steps <= most:
            raise ValueError(
                f"sampling_steps must lie between 1 and {most}, the steps from start to end, got "
                f"{self.sampling_steps}; raise start or lower end for more"
            )

    @property
    def first_step(self) -> int:
        """The noisiest step of sampling."""
        return round(self.start * self.diffusion_steps) - 1

    @property
    def last_step(self) -> int:
        """The step at which the last prediction is made, unless there is only one."""
        return max(round(self.end * self.diffusion_steps) - 1, 0)
