"""A residual block whose normalisations are modulated by a label map."""

import torch.nn.functional as F
from monai.networks.blocks.spade_norm import SPADE
from torch import Tensor, nn


class SpadeBlock(nn.Module):
    """Two SPADE-normalised convolutions beside a 1 x 1 skip; a vector (style) shifts the features between them.

    Source: Park et al. 2019, fig. 4 (arXiv:1903.07291).
    """

    def __init__(self, channels_in: int, channels_out: int, condition_channels: int, vector: int, hidden: int) -> None:
        super().__init__()
        self.norm_in = SPADE(label_nc=condition_channels, norm_nc=channels_in, hidden_channels=hidden)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shift = nn.Linear(vector, channels_out)
        self.norm_out = SPADE(label_nc=condition_channels, norm_nc=channels_out, hidden_channels=hidden)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Tensor, condition: Tensor, vector: Tensor) -> Tensor:
        """[B, channels_in, h, w], [B, condition_channels, H, W], [B, vector] -> [B, channels_out, h, w]."""
        inner = self.conv_in(F.leaky_relu(self.norm_in(features, condition), 0.2))
        # Shifted after the normalisation, which would take a constant away again.
        inner = self.norm_out(inner, condition) + self.shift(vector)[:, :, None, None]
        return self.skip(features) + self.conv_out(F.leaky_relu(inner, 0.2))
