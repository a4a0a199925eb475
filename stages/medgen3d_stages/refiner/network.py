"""The denoiser of single slices: MONAI's diffusion U-Net, with the mask injected into its decoder by SPADE."""

import torch.nn.functional as F
from torch import Tensor, nn

from medgen3d_stages.layers.label_code import LabelPlanes
from medgen3d_stages.layers.spade import spade_diffusion_unet
from medgen3d_stages.refiner.config import RefinerConfig

VIEWS = ("axial", "coronal", "sagittal")


class SliceDenoiser(nn.Module):
    """Predicts the velocity of noisy slices of any of the three views; one network for all (SDM, Wang et al. 2022).

    The view is an embedding. It stands for the voxel spacing too, which within one data set is the view's own.
    """

    def __init__(self, config: RefinerConfig, num_labels: int) -> None:
        super().__init__()
        self.patch = config.patch
        self.plane_multiple = config.patch * 2 ** (len(config.channels) - 1)
        self.labels = LabelPlanes(num_labels)
        pixels = config.patch**2
        self.unet = spade_diffusion_unet(
            num_planes=pixels * self.labels.num_planes,
            groups=8,
            hidden=config.spade_channels,
            in_channels=pixels,
            out_channels=pixels,
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            attention_levels=config.attention_levels,
            num_head_channels=8,
            num_class_embeds=len(VIEWS),
        )

    def forward(self, noisy: Tensor, mask: Tensor, view: Tensor, step: Tensor) -> Tensor:
        """Velocity [B, 1, h, w].

        Args:
            noisy: [B, 1, h, w], sides multiples of `plane_multiple`, not both just one.
            mask: Integer [B, h, w]; all NO_LABEL is the null mask.
            view: [B], index into VIEWS.
            step: [B], diffusion step.
        """
        folded, planes = (F.pixel_unshuffle(whole, self.patch) for whole in (noisy, self.labels(mask)))
        return F.pixel_shuffle(self.unet(folded, timesteps=step, seg=planes, class_labels=view), self.patch)
