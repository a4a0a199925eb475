"""Generation of volumes: from the slice with most foreground outwards, both ways at once, many volumes together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import Networks, batches, normal
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import History, places_in_plane
from medgen3d_stages.layers.label_code import NO_LABEL


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRequest:
    """An image to generate for a mask.

    mask: Integer [D, h, w], contiguous ids; h and w may be smaller than the plane.
    style_seed: Images with the same number share their appearance (scanner, contrast); None: drawn from the item's own
        stream.
    """

    mask: NDArray[np.integer]
    style_seed: int | None = None

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError, with a sentence, for a mask that this data set's model does not know."""
        shape = self.mask.shape
        if self.mask.ndim != 3 or 0 in shape or shape[1] > spec.plane[0] or shape[2] > spec.plane[1]:
            raise ValueError(f"a mask must be [D, h, w] with at most {spec.plane} pixels in plane, got shape {shape}")
        for label in (self.mask.min(), self.mask.max()):
            if not 0 <= label < spec.num_labels:
                raise ValueError(f"the mask holds label {label}; labels are 0 to {spec.num_labels - 1}")


class Walk:
    """One volume on its way: from `first` upwards (direction 0) and downwards (direction 1)."""

    def __init__(self, request: ImageRequest, spec: DataSpec, style: Tensor) -> None:
        request.check(spec)
        self.depth, height, width = request.mask.shape
        top, left = (spec.plane[0] - height) // 2, (spec.plane[1] - width) // 2
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)
        self.mask = torch.zeros((self.depth, *spec.plane), dtype=torch.int32)
        self.mask[:, self.rows, self.columns] = torch.from_numpy(request.mask.astype(np.int32))
        self.image = torch.zeros(self.mask.shape)
        self.style = style
        self.first = int((self.mask > 0).sum(dim=(1, 2)).argmax())

    def place(self, direction: int, number: int) -> int | None:
        """The slice made as number `number` in a direction; None beyond the volume's end."""
        place = self.first + number if direction == 0 else self.first - number
        return place if 0 <= place < self.depth else None

    def existing_place(self, direction: int, number: int) -> int:
        """The same of a slice that is known to lie within the volume."""
        place = self.place(direction, number)
        assert place is not None
        return place

    def history(self, direction: int, number: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Masks [length + 1, H, W], images [length, H, W] and presence [length] in the order of generation."""
        numbers = range(number - length, number + 1)
        places = [self.place(direction, each) if each >= 0 else None for each in numbers]
        nothing = torch.full(self.mask.shape[1:], NO_LABEL, dtype=torch.int32)
        masks = torch.stack([nothing if place is None else self.mask[place] for place in places])
        before = places[:-1]
        images = torch.stack([torch.zeros(nothing.shape) if place is None else self.image[place] for place in before])
        return masks, images, torch.tensor([float(place is not None) for place in before])


class ImageRun:
    """An image on its way: see `medgen3d_stages.contract.SampleRun`. A unit of work is a slice."""

    def __init__(
        self, request: ImageRequest, generator: torch.Generator, config: ImageSequenceGeneratorConfig, spec: DataSpec
    ) -> None:
        source = generator if request.style_seed is None else torch.Generator().manual_seed(request.style_seed)
        style = config.style_spread * normal((config.style,), [source], torch.device("cpu"))[0]
        self._walk = Walk(request, spec, style)
        self._number = 0
        self.total, self.done = self._walk.depth, 0

    def tasks(self) -> list[tuple[Walk, int, int]]:
        """(walk, direction, number) of the slices that come next; the first one belongs to both directions."""
        ways = (0, 1) if self._number else (0,)
        return [(self._walk, way, self._number) for way in ways if self._walk.place(way, self._number) is not None]

    @property
    def rows(self) -> int:
        return len(self.tasks())

    def settle(self) -> None:
        """The slices that came next are made."""
        self.done += self.rows
        self._number += 1

    def result(self) -> NDArray[np.float32]:
        walk = self._walk
        return walk.image[:, walk.rows, walk.columns].clamp(-1, 1).numpy()


def generate_images(
    networks: Networks,
    requests: Sequence[ImageRequest],
    generators: Sequence[torch.Generator],
    config: ImageSequenceGeneratorConfig,
    spec: DataSpec,
) -> list[NDArray[np.float32]]:
    """Images for whole masks; each round is one batch of the next slices of every volume in both directions."""
    runs = [ImageRun(request, rng, config, spec) for request, rng in zip(requests, generators, strict=True)]
    while unfinished := [run for run in runs if run.rows]:
        advance_images(networks, unfinished, config, spec)
    return [run.result() for run in runs]


@torch.no_grad()
def advance_images(
    networks: Networks,
    runs: Sequence[ImageRun],
    config: ImageSequenceGeneratorConfig,
    spec: DataSpec,
    width: int | None = None,
) -> None:
    """The next slices of every run, `width` slices in a batch."""
    for tasks, filled_up in batches([task for run in runs for task in run.tasks()], width):
        images = _make_slices(networks, filled_up, config, spec)
        for (walk, way, number), image in zip(tasks, images, strict=False):  # what fills up the batch is dropped
            walk.image[walk.existing_place(way, number)] = image
    for run in runs:
        run.settle()


def _make_slices(
    networks: Networks, tasks: Sequence[tuple[Walk, int, int]], config: ImageSequenceGeneratorConfig, spec: DataSpec
) -> Tensor:
    """[len(tasks), H, W] on the CPU."""
    device = next(networks["generator"].parameters()).device
    histories = [walk.history(way, number, config.history) for walk, way, number in tasks]
    masks, images, present = (torch.stack(part).to(device) for part in zip(*histories, strict=True))
    positions = [(walk.existing_place(way, number) + 0.5) / walk.depth for walk, way, number in tasks]
    style = torch.stack([walk.style for walk, _, _ in tasks]).to(device)
    places = places_in_plane(spec.plane, *map(range, spec.plane)).to(device).expand(len(tasks), -1, -1, -1)
    position = torch.tensor(positions, device=device)
    made: Tensor = networks["generator"](History(masks, images, present), style, position, places).image
    return made.cpu()
