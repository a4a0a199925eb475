"""Options of the mask generator."""

from dataclasses import dataclass
from typing import ClassVar, Literal

Sampler = Literal["ddpm", "ddim", "dpm++"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskGeneratorConfig:
    """Options of the stage; every value is checked when it is set."""

    SAMPLING_FIELDS: ClassVar[tuple[str, ...]] = ("overlap", "sampler", "sampling_steps", "guidance")
    """Options that training never uses: they may be chosen anew when a trained stage is used."""

    window: int = 8
    """Consecutive slices generated together [slices]."""
    overlap: int = 2
    """Known slices that an extension starts from [slices]."""
    channels: tuple[int, ...] = (64, 128, 192)
    """Features per resolution level of the U-Net; each level halves the resolution."""
    num_res_blocks: int = 1
    """Residual blocks per level."""
    attention_levels: tuple[bool, ...] = (False, False, True)
    """Which levels attend over all their positions."""
    patch: int = 2
    """Pixels along each in-plane axis folded into one position of the first level [pixels]."""
    diffusion_steps: int = 1000
    """Length of the noise schedule, T."""
    mode_probabilities: tuple[float, float, float] = (0.3, 0.35, 0.35)
    """Share of training windows that are unconditional, forward and backward."""
    scattered_probability: float = 0.1
    """Share of conditional windows whose known slices lie anywhere."""
    cross_entropy_weight: float = 0.5
    """Weight of the cross-entropy beside the MSE of the decoded labels."""
    sampler: Sampler = "ddim"
    """Ancestral DDPM, DDIM, or DPM-Solver++(2M)."""
    sampling_steps: int = 4
    """Denoising steps per window; DDPM visits as many of the T steps."""
    guidance: float = 1.0
    """Weight w of the known slices in classifier-free guidance; 1 is off."""

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.window:
            raise ValueError(
                f"overlap must lie between 1 and window - 1 = {self.window - 1} slices, got {self.overlap}"
            )
        if len(self.channels) != len(self.attention_levels):
            raise ValueError(
                f"{len(self.channels)} levels of channels but {len(self.attention_levels)} attention_levels"
            )
        if not self.channels or any(width < 1 or width % 8 for width in self.channels):
            raise ValueError(f"channels must be one or more multiples of 8 (group normalisation), got {self.channels}")
        if self.patch < 1 or self.num_res_blocks < 1:
            raise ValueError(f"patch and num_res_blocks must be at least 1, got {self.patch} and {self.num_res_blocks}")
        if min(self.mode_probabilities) < 0 or abs(sum(self.mode_probabilities) - 1) > 1e-6:
            raise ValueError(f"mode_probabilities must be three shares that sum to 1, got {self.mode_probabilities}")
        if not 0 <= self.scattered_probability <= 1:
            raise ValueError(f"scattered_probability must lie between 0 and 1, got {self.scattered_probability}")
        if self.diffusion_steps < 1:
            raise ValueError(f"diffusion_steps must be at least 1 step, got {self.diffusion_steps}")
        if not 1 <= self.sampling_steps <= self.diffusion_steps:
            raise ValueError(f"sampling_steps must lie between 1 and {self.diffusion_steps}, got {self.sampling_steps}")
        if self.guidance < 0 or self.cross_entropy_weight < 0:
            raise ValueError("guidance and cross_entropy_weight must not be negative")
