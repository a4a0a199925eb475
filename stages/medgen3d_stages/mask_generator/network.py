"""The denoiser of mask windows: a 2D U-Net with slices and label planes folded into channels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgen3d_stages.layers.label_code import LabelHead
from medgen3d_stages.layers.padding import multiple_of
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.monai_parts import DiffusionModelUNet

POSITION_FEATURES = 5


class MaskDenoiser(nn.Module):
    """Predicts the labels of a window of `window` slices; its first level works on patch x patch pixels at a time."""

    def __init__(self, config: MaskGeneratorConfig, num_labels: int) -> None:
        super().__init__()
        self.window, self.patch = config.window, config.patch
        self.labels = LabelHead(num_labels)
        self.plane_multiple = config.patch * 2 ** (len(config.channels) - 1)
        pixels = config.patch**2
        folded = config.window * (2 * self.labels.num_planes + 2)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=pixels * folded + config.window * POSITION_FEATURES + 1,
            out_channels=pixels * config.window * self.labels.num_features,
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            attention_levels=config.attention_levels,
            norm_num_groups=8,
            num_head_channels=8,
            use_flash_attention=True,
        )

    def forward(
        self,
        noisy: Tensor,
        known: Tensor,
        indicator: Tensor,
        valid: Tensor,
        position: Tensor,
        depth: Tensor,
        step: Tensor,
    ) -> Tensor:
        """Features of which `labels` makes logits. C is the number of label planes.

        Args:
            noisy: [B, C, m, H, W]; known slices and everything outside the case hold the signal of clean labels.
            known: [B, C, m, H, W], the signal of the known slices, 0 elsewhere.
            indicator: [B, 1, m, H, W], 1 on known slices.
            valid: [B, 1, m, H, W], 1 inside the case.
            position: [B, m], relative position (z + 0.5) / D of each slice.
            depth: [B], D over the data set's largest D.
            step: [B], diffusion step.

        Returns:
            [B, labels.num_features, m, H, W].
        """
        height, width = noisy.shape[-2:]
        pad = (0, multiple_of(width, self.plane_multiple) - width, 0, multiple_of(height, self.plane_multiple) - height)
        planes = F.pad(torch.cat([noisy, known, indicator, valid], dim=1).flatten(1, 2), pad)
        folded = F.pixel_unshuffle(planes, self.patch)
        where = torch.cat([position_features(position).flatten(1), depth[:, None]], dim=1)
        spread = where[:, :, None, None].expand(-1, -1, *folded.shape[-2:])
        out = self.unet(torch.cat([folded, spread], dim=1), timesteps=step)
        features = F.pixel_shuffle(out, self.patch)[..., :height, :width]
        return features.unflatten(1, (self.labels.num_features, self.window))


def position_features(position: Tensor) -> Tensor:
    """Relative positions [...] in (0, 1) -> [..., POSITION_FEATURES]: the position itself and two sine-cosine pairs."""
    angle = position[..., None] * position.new_tensor([math.pi, 4 * math.pi])
    return torch.cat([2 * position[..., None] - 1, angle.sin(), angle.cos()], dim=-1)
