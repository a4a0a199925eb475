"""The denoiser of single slices: MONAI's diffusion U-Net, with the mask injected into its decoder by SPADE."""

from torch import Tensor, nn

from medgen3d_stages.layers.spade import spade_diffusion_unet
from medgen3d_stages.refiner.config import RefinerConfig

VIEWS = ("axial", "coronal", "sagittal")


class SliceDenoiser(nn.Module):
    """Predicts the velocity of noisy slices of any of the three views; one network for all (SDM, Wang et al. 2022).

    The view is an embedding. It stands for the voxel spacing too, which within one data set is the view's own.
    """

    def __init__(self, config: RefinerConfig, num_labels: int) -> None:
        super().__init__()
        self.plane_multiple = 2 ** (len(config.channels) - 1)
        self.unet = spade_diffusion_unet(
            num_labels=num_labels,
            groups=8,
            hidden=config.spade_channels,
            in_channels=1,
            out_channels=1,
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            attention_levels=config.attention_levels,
            num_head_channels=8,
            num_class_embeds=len(VIEWS),
        )

    def forward(self, noisy: Tensor, mask_one_hot: Tensor, view: Tensor, step: Tensor) -> Tensor:
        """Velocity [B, 1, h, w].

        Args:
            noisy: [B, 1, h, w], sides multiples of `plane_multiple`, not both just one.
            mask_one_hot: [B, K, h, w] in {0, 1}; all 0 is the null mask.
            view: [B], index into VIEWS.
            step: [B], diffusion step.
        """
        velocity: Tensor = self.unet(noisy, timesteps=step, seg=mask_one_hot, class_labels=view)
        return velocity
