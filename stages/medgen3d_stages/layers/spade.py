"""Normalisation that a label map modulates (SPADE), and a residual block made of it."""

import torch.nn.functional as F
from torch import Tensor, nn

from medgen3d_stages.monai_parts import SPADE, SPADEDiffusionModelUNet


class Spade(nn.Module):
    """A normalisation without weights of its own, then scale and shift per pixel, computed from the label map.

    Not MONAI's: that one normalises scale and shift themselves, which takes away which label a region has
    (docs/decisions/0006). Source: Park et al. 2019, sec. 3 (arXiv:1903.07291).
    """

    def __init__(self, normalise: nn.Module, channels: int, condition_channels: int, hidden: int) -> None:
        super().__init__()
        self.normalise = normalise
        self.shared = nn.Conv2d(condition_channels, hidden, 3, padding=1)
        self.scale = nn.Conv2d(hidden, channels, 3, padding=1)
        self.shift = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """[B, channels, h, w], [B, condition_channels, H, W] -> [B, channels, h, w]."""
        shown = F.leaky_relu(self.shared(F.interpolate(condition, features.shape[-2:], mode="nearest")), 0.2)
        modulated: Tensor = self.normalise(features) * (1 + self.scale(shown)) + self.shift(shown)
        return modulated


class SpadeBlock(nn.Module):
    """Two SPADE-normalised convolutions beside a 1 x 1 skip; a vector (style) shifts the features between them.

    Source: Park et al. 2019, fig. 4 (arXiv:1903.07291).
    """

    def __init__(self, channels_in: int, channels_out: int, condition_channels: int, vector: int, hidden: int) -> None:
        super().__init__()
        self.norm_in = Spade(nn.InstanceNorm2d(channels_in), channels_in, condition_channels, hidden)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shift = nn.Linear(vector, channels_out)
        self.norm_out = Spade(nn.InstanceNorm2d(channels_out), channels_out, condition_channels, hidden)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Tensor, condition: Tensor, vector: Tensor) -> Tensor:
        """[B, channels_in, h, w], [B, condition_channels, H, W], [B, vector] -> [B, channels_out, h, w]."""
        inner = self.conv_in(F.leaky_relu(self.norm_in(features, condition), 0.2))
        # Shifted after the normalisation, which would take a constant away again.
        inner = self.norm_out(inner, condition) + self.shift(vector)[:, :, None, None]
        return self.skip(features) + self.conv_out(F.leaky_relu(inner, 0.2))


def spade_diffusion_unet(*, num_planes: int, groups: int, hidden: int, **options: object) -> SPADEDiffusionModelUNet:
    """MONAI's 2D SPADE diffusion U-Net with `Spade` in the place of MONAI's own normalisation.

    Args:
        num_planes: Planes of the mask.
        groups: Of every group normalisation.
        hidden: Features between the mask and each modulation.
        options: Of `SPADEDiffusionModelUNet`.
    """
    unet = SPADEDiffusionModelUNet(
        spatial_dims=2,
        label_nc=num_planes,
        norm_num_groups=groups,
        spade_intermediate_channels=hidden,
        use_flash_attention=True,
        **options,
    )
    for block in list(unet.modules()):
        for name in ("norm1", "norm2"):
            before = getattr(block, name, None)
            if isinstance(before, SPADE):
                channels = before.mlp_gamma.conv.out_channels
                # Without weights: a constant added to the features is then taken away, as in Park et al.
                normalise = nn.GroupNorm(groups, channels, eps=1e-6, affine=False)
                setattr(block, name, Spade(normalise, channels, num_planes, hidden))
    return unet
