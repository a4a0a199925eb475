"""The networks of the image sequence generator: style encoder, slice generator and its two discriminators."""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.layers.label_code import LabelPlanes
from medgen3d_stages.layers.padding import padded_side
from medgen3d_stages.layers.spade import SpadeBlock
from medgen3d_stages.monai_parts import MultiScalePatchDiscriminator

SEQUENCE = 3
"""Slices that the sequence discriminator sees."""


class History(NamedTuple):
    """What the generator sees at one slice, in the order of generation (oldest first, L = history).

    masks: Integer [B, L + 1, H, W], the slice itself last; NO_LABEL where there is no slice.
    images: [B, L, H, W], 0 where there is no slice.
    present: [B, L], 1 where there is one.
    """

    masks: Tensor
    images: Tensor
    present: Tensor


class Slice(NamedTuple):
    """One generated slice. image, warped: [B, H, W]. occlusion: [B, H, W] in [0, 1], the share that is synthesised."""

    image: Tensor
    warped: Tensor
    occlusion: Tensor


def places_in_plane(plane: tuple[int, int], rows: range, columns: range) -> Tensor:
    """[2, len(rows), len(columns)], where pixels lie: -1 at the first row or column of the plane, +1 at the last."""
    sides = zip((rows, columns), plane, strict=True)
    along = [2 * torch.tensor(numbers, dtype=torch.float32) / max(side - 1, 1) - 1 for numbers, side in sides]
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


class StyleEncoder(nn.Module):
    """Slices of a real volume -> mean and log-variance of its style."""

    def __init__(self, config: ImageSequenceGeneratorConfig) -> None:
        super().__init__()
        widths = (config.style_slices, *config.channels)
        self.convolutions = nn.Sequential(*(_strided(before, after) for before, after in itertools.pairwise(widths)))
        self.to_style = nn.Linear(config.channels[-1], 2 * config.style)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """[B, style_slices, H, W] -> mean [B, style], log-variance [B, style]."""
        mean, log_variance = self.to_style(self.convolutions(slices).mean(dim=(2, 3))).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)


class SliceGenerator(nn.Module):
    """SPADE decoder over an encoding of the history; composes a synthesised slice with the warped previous one."""

    def __init__(self, config: ImageSequenceGeneratorConfig, num_labels: int) -> None:
        super().__init__()
        self.labels = LabelPlanes(num_labels)
        condition = self.labels.num_planes * (config.history + 1)
        vector = config.style + 1
        self.plane_multiple = 2 ** (len(config.channels) - 1)
        self.is_told_places = config.crop is not None
        told = condition + 2 * config.history + 2 * self.is_told_places
        self.enter = nn.Conv2d(told, config.channels[0], 3, padding=1)
        self.down = nn.ModuleList(_strided(before, after) for before, after in itertools.pairwise(config.channels))
        self.middle = SpadeBlock(config.channels[-1], config.channels[-1], condition, vector, config.spade_channels)
        self.up = nn.ModuleList(
            SpadeBlock(below + beside, beside, condition, vector, config.spade_channels)
            for below, beside in zip(config.channels[:0:-1], config.channels[-2::-1], strict=True)
        )
        self.heads = nn.Conv2d(config.channels[0], 4, 3, padding=1)

    def forward(self, history: History, style: Tensor, position: Tensor, places: Tensor) -> Slice:
        """One slice.

        Args:
            history: Masks up to this slice and the images before it.
            style: [B, style].
            position: [B], relative position (z + 0.5) / D of the slice.
            places: [B, 2, H, W], where pixels lie in the plane; used if the generator is trained on crops of it.
        """
        height, width = history.images.shape[-2:]
        bottom, right = (padded_side(side, self.plane_multiple) - side for side in (height, width))
        pad = (0, right, 0, bottom)
        condition = F.pad(self.labels(history.masks).transpose(1, 2).flatten(1, 2), pad)
        presence = history.present[:, :, None, None].expand_as(history.images)
        vector = torch.cat([style, 2 * position[:, None] - 1], dim=1)
        seen = [history.images, presence, *([places] if self.is_told_places else [])]
        features = self.enter(torch.cat([condition, F.pad(torch.cat(seen, dim=1), pad)], dim=1))
        beside = [features]
        for block in self.down:
            beside.append(block(beside[-1]))
        features = self.middle(beside.pop(), condition, vector)
        for block in self.up:
            features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([features, beside.pop()], dim=1), condition, vector)
        heads = self.heads(F.leaky_relu(features, 0.2)).float()[..., :height, :width]
        return _compose(heads, history)


def _compose(heads: Tensor, history: History) -> Slice:
    """x_t = o * h + (1 - o) * warp(x_{t-1}, f); without a previous slice o = 1."""
    warped = warp(history.images[:, -1], heads[:, 1:3])
    has_previous = history.present[:, -1, None, None]
    occlusion = 1 - has_previous * (1 - heads[:, 3].sigmoid())
    return Slice(occlusion * heads[:, 0].tanh() + (1 - occlusion) * warped, warped, occlusion)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch each pixel of the result from `image` at its own place plus the flow there.

    Args:
        image: [B, H, W].
        flow: [B, 2, H, W], backward flow (dx, dy) in pixels.

    Returns:
        [B, H, W], bilinear; beyond the border the border's value.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device, dtype=torch.float32)[:, None] + flow[:, 1]
    columns = torch.arange(width, device=image.device, dtype=torch.float32) + flow[:, 0]
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], dim=-1)
    return F.grid_sample(image[:, None].float(), grid, padding_mode="border", align_corners=True)[:, 0]


class Discriminator(nn.Module):
    """Multi-scale PatchGAN over slices and their masks."""

    def __init__(self, config: ImageSequenceGeneratorConfig, num_labels: int, num_slices: int, num_scales: int) -> None:
        super().__init__()
        # The coarsest scale halves the plane this often and then takes one pixel off; smaller planes are padded, so
        # that 2 x 2 pixels are left, the fewest that can be normalised.
        self.smallest_side = 3 * 2 ** (config.num_layers * num_scales)
        self.labels = LabelPlanes(num_labels)
        self.scales = MultiScalePatchDiscriminator(
            num_d=num_scales,
            num_layers_d=config.num_layers,
            spatial_dims=2,
            channels=config.discriminator_channels,
            in_channels=num_slices * (self.labels.num_planes + 1),
            norm="INSTANCE",
            minimum_size_im=self.smallest_side,
        )

    def forward(self, images: Tensor, masks: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Patch scores and features per scale, for images [B, S, H, W] and integer masks [B, S, H, W]."""
        planes = torch.cat([images, self.labels(masks).transpose(1, 2).flatten(1, 2)], dim=1)
        height, width = planes.shape[-2:]
        pad = (0, max(self.smallest_side - width, 0), 0, max(self.smallest_side - height, 0))
        scores, features = self.scales(F.pad(planes, pad))
        return [score.float() for score in scores], features


def _strided(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.GroupNorm(8, channels_out),
        nn.LeakyReLU(0.2),
    )
