"""Options of the segmenter."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """Options of the stage; every value is checked when it is set."""

    SAMPLING_FIELDS: ClassVar[tuple[str, ...]] = ("overlap",)
    """Options that training never uses: they may be chosen anew when a trained stage is used."""

    channels: int = 16
    """Features at full resolution; each level halves the resolution and doubles them."""
    num_res_blocks: tuple[int, ...] = (1, 1, 2, 2)
    """Residual blocks per level of the encoder."""
    patch: tuple[int, int, int] = (40, 64, 48)
    """(D, H, W) of what the network sees at once, in training and in use [voxels]; smaller volumes are reflected."""
    foreground_share: float = 0.5
    """Share of training patches that are centred on a labelled voxel."""
    rotation_degrees: float = 15.0
    """Training patches are rotated about a random axis by up to this much [degrees]."""
    zoom: float = 0.15
    """Training patches are scaled by a factor between 1 - zoom and 1 + zoom."""
    intensity_jitter: float = 0.2
    """Contrast of training patches is scaled by 1 +- this, and their brightness shifted by half of it."""
    overlap: float = 0.25
    """Share that neighbouring windows of a volume larger than the patch have in common."""

    def __post_init__(self) -> None:
        if self.channels < 8 or self.channels % 8:
            raise ValueError(f"channels must be a multiple of 8 (group normalisation), got {self.channels}")
        if len(self.num_res_blocks) < 2 or min(self.num_res_blocks) < 1:
            raise ValueError(f"num_res_blocks must be at least two numbers of at least 1, got {self.num_res_blocks}")
        factor = 2 ** (len(self.num_res_blocks) - 1)
        if any(side < 2 * factor or side % factor for side in self.patch):
            raise ValueError(f"patch must be multiples of {factor} of at least {2 * factor} voxels, got {self.patch}")
        if not (0 <= self.foreground_share <= 1 and 0 <= self.overlap < 1):
            raise ValueError(
                "foreground_share must lie in [0, 1] and overlap in [0, 1), "
                f"got {self.foreground_share}, {self.overlap}"
            )
        if not (0 <= self.rotation_degrees <= 180 and 0 <= self.zoom < 1 and 0 <= self.intensity_jitter < 1):
            raise ValueError(
                "rotation_degrees must lie in [0, 180], zoom and intensity_jitter in [0, 1), "
                f"got {self.rotation_degrees}, {self.zoom}, {self.intensity_jitter}"
            )
