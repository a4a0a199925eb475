"""Options of the image sequence generator."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSequenceGeneratorConfig:
    """Options of the stage; every value is checked when it is set."""

    SAMPLING_FIELDS: ClassVar[tuple[str, ...]] = ("style_spread",)
    """Options that training never uses: they may be chosen anew when a trained stage is used."""

    history: int = 2
    """Generated slices that the generator sees, L [slices]."""
    style: int = 64
    """Numbers in the style vector."""
    style_spread: float = 1.0
    """Standard deviation of each of these numbers when a style is drawn; above 1 for images that differ more."""
    channels: tuple[int, ...] = (32, 64, 96, 128)
    """Features per resolution level of the generator; each level halves the resolution."""
    spade_channels: int = 16
    """Hidden features of each SPADE normalisation."""
    discriminator_channels: int = 16
    """Features of the first layer of each discriminator."""
    num_scales: int = 2
    """Scales of the slice discriminator."""
    num_layers: int = 2
    """Strided layers of the finest discriminator."""
    crop: int | None = None
    """Side of the square cut from the plane in training, whose place the generator is told [pixels]. None: whole
    planes, which the generator takes for the whole wherever it stands."""
    recompute: bool = False
    """Compute the generator's activations again on the way back instead of keeping them: a third more work, for a
    fraction of the memory."""
    window: int = 4
    """Slices that are generated in a row in training [slices]."""
    style_slices: int = 5
    """Slices of the real volume, evenly spaced, that the style encoder sees [slices]."""
    short_history_probability: float = 0.6
    """Share of training windows that start with less than the full history."""
    teacher_forced_share: float = 0.15
    """Share of the training in which the history is real; after it, the generator sees its own slices."""
    l1_weight: float = 10.0
    feature_matching_weight: float = 10.0
    flow_weight: float = 10.0
    kl_weight: float = 0.002
    adversarial_weight: float = 1.0
    """Weights of the losses in the generator's turn."""

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"history must be at least 1 slice, got {self.history}")
        if self.window < 3:
            raise ValueError(f"window must be at least 3 slices (the sequence discriminator sees 3), got {self.window}")
        if len(self.channels) < 2 or any(width < 1 or width % 8 for width in self.channels):
            raise ValueError(f"channels must be at least two multiples of 8, got {self.channels}")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"crop must be at least 1 pixel, or null for whole planes, got {self.crop}")
        counts = ("style", "style_slices", "num_scales", "num_layers", "spade_channels", "discriminator_channels")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.style_spread < 0:
            raise ValueError(f"style_spread must not be negative, got {self.style_spread}")
        if not (0 <= self.short_history_probability <= 1 and 0 <= self.teacher_forced_share <= 1):
            raise ValueError("short_history_probability and teacher_forced_share must lie between 0 and 1")
        weights = (
            self.l1_weight,
            self.feature_matching_weight,
            self.flow_weight,
            self.kl_weight,
            self.adversarial_weight,
        )
        if min(weights) < 0:
            raise ValueError(f"loss weights must not be negative, got {weights}")
