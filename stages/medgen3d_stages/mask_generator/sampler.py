"""Drawing of whole masks: one window, then extensions forwards and backwards, many volumes together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import batches, child, normal
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise
from medgen3d_stages.diffusion.sampler import Denoising
from medgen3d_stages.diffusion.schedule import even_steps
from medgen3d_stages.layers.label_code import LabelHead
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRequest:
    """A mask to draw.

    shape: (D, height, width) of the case, without padding.
    given: Slices that are known beforehand, slice index -> integer [height, width]; kept exactly.
    """

    shape: tuple[int, int, int]
    given: dict[int, NDArray[np.integer]] = field(default_factory=dict)

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError, with a sentence, for what this data set's model cannot draw."""
        depth, height, width = self.shape
        if depth < 1 or not 1 <= height <= spec.plane[0] or not 1 <= width <= spec.plane[1]:
            raise ValueError(f"shape {self.shape} does not fit: at least 1 slice, at most {spec.plane} pixels in plane")
        for index, plane in self.given.items():
            if not 0 <= index < depth or plane.shape != (height, width):
                raise ValueError(
                    f"given slice {index} of shape {plane.shape} does not fit a mask of shape {self.shape}"
                )
            for label in (plane.min(), plane.max()):
                if not 0 <= label < spec.num_labels:
                    raise ValueError(f"given slice {index} holds label {label}; labels are 0 to {spec.num_labels - 1}")


class Draft:
    """A mask in the making: which slices are known, and which windows come next."""

    def __init__(
        self, request: MaskRequest, config: MaskGeneratorConfig, spec: DataSpec, generator: torch.Generator
    ) -> None:
        request.check(spec)
        self.config, self.generator = config, generator
        self.dtype = np.uint8 if spec.num_labels <= 256 else np.uint16
        self.depth, height, width = request.shape
        top, left = (spec.plane[0] - height) // 2, (spec.plane[1] - width) // 2
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)
        self.mask = torch.zeros((self.depth, *spec.plane), dtype=torch.int32)
        self.known = torch.zeros(self.depth, dtype=torch.bool)
        for index, plane in request.given.items():
            self.mask[index, self.rows, self.columns] = torch.from_numpy(plane.astype(np.int32))
            self.known[index] = True
        self.done: tuple[int, int] | None = None

    def next_windows(self) -> list[int]:
        """First slices of the windows to draw now; independent of one another. Empty when the mask is whole."""
        if bool(self.known.all()):
            return []
        last_start = max(self.depth - self.config.window, 0)
        if self.done is None:
            return [self._first_window(last_start)]
        begin, end = self.done
        windows = []
        if end < self.depth:
            windows.append(min(end - self.config.overlap, last_start))
        if begin > 0:
            windows.append(max(begin + self.config.overlap - self.config.window, 0))
        return windows

    def _first_window(self, last_start: int) -> int:
        """Anywhere; but with given slices, around one of them."""
        lowest, highest = 0, last_start
        given = self.known.nonzero().flatten()
        if len(given):
            pick = int(given[torch.randint(0, len(given), (), generator=self.generator)])
            lowest, highest = max(pick - self.config.window + 1, 0), min(pick, last_start)
        return int(torch.randint(lowest, highest + 1, (), generator=self.generator))

    def fill(self, start: int, window: Tensor) -> None:
        """Take over the labels [m, H, W] of a drawn window; slices that are known stay as they are."""
        stop = min(start + self.config.window, self.depth)
        fresh = ~self.known[start:stop]
        self.mask[start:stop][fresh] = window[: stop - start][fresh].int()
        self.known[start:stop] = True
        begin, end = self.done or (start, stop)
        begin, end = min(begin, start), max(end, stop)
        while end < self.depth and self.known[end]:
            end += 1
        while begin > 0 and self.known[begin - 1]:
            begin -= 1
        self.done = begin, end

    def result(self) -> NDArray[np.integer]:
        """[D, height, width], without padding; uint8, from 257 labels up uint16."""
        return self.mask[:, self.rows, self.columns].numpy().astype(self.dtype)


class Window:
    """A window of a draft between noise and labels, on the device; every tensor is without the batch axis.

    clean: [C, m, H, W], the signal of its labels, right where the slice is known or outside the case.
    valid, indicator, unknown: [1, m, H, W]: inside the case; of a known slice; of neither.
    position, depth: [m] and scalar, as the network is told.
    hiding_noise: What hides the known slices in classifier-free guidance; None without guidance.
    labels: Integer [m, H, W], what the last step took for the likeliest where it is unknown; what is given elsewhere.
    num_fresh: Slices that it adds to the draft.
    """

    def __init__(self, draft: Draft, start: int, spec: DataSpec, signal_kept: Tensor, head: LabelHead) -> None:
        self.draft, self.start = draft, start
        config, generator, device = draft.config, child(draft.generator), head.codes.device
        inside = min(config.window, draft.depth - start)
        mask = torch.zeros((config.window, *spec.plane), dtype=torch.int32)
        mask[:inside] = draft.mask[start : start + inside]
        known = torch.zeros(config.window)
        known[:inside] = draft.known[start : start + inside]
        valid = torch.zeros((1, *mask.shape))
        valid[:, :inside, draft.rows, draft.columns] = 1
        self.num_fresh = inside - int(known.sum())
        self.valid = valid.to(device)
        self.labels = mask.to(device)
        self.clean = head.encode(self.labels[None])[0]
        self.indicator = known.to(device)[None, :, None, None] * self.valid
        self.unknown = self.valid * (1 - self.indicator)
        self.position = ((torch.arange(start, start + config.window) + 0.5) / draft.depth).to(device)
        self.depth = torch.tensor(draft.depth / spec.max_depth, device=device)
        noisy = normal(self.clean.shape, [generator], device)
        self.hiding_noise = None if config.guidance == 1 else normal(self.clean.shape, [generator], device)[0]
        steps = even_steps(config.diffusion_steps - 1, config.sampling_steps)
        self.denoising = Denoising(noisy, steps, signal_kept, config.sampler, [generator])


class MaskRun:
    """A mask on its way: see `medgen3d_stages.contract.SampleRun`. A unit of work is a slice at a denoising step."""

    def __init__(
        self,
        request: MaskRequest,
        generator: torch.Generator,
        config: MaskGeneratorConfig,
        spec: DataSpec,
        signal_kept: Tensor,
        head: LabelHead,
    ) -> None:
        self._draft = Draft(request, config, spec, generator)
        self._spec, self._signal_kept, self._head = spec, signal_kept, head
        self._num_steps = config.sampling_steps
        self.total = self._num_unknown() * self._num_steps
        self.windows: list[Window] = []
        self._next_round()

    @property
    def rows(self) -> int:
        return len(self.windows)

    @property
    def done(self) -> int:
        begun = sum(window.denoising.place * window.num_fresh for window in self.windows)
        return self.total - self._num_unknown() * self._num_steps + begun

    def settle(self) -> None:
        """Once all its windows are drawn, take them over and begin the next ones."""
        if all(window.denoising.finished for window in self.windows):
            for window in self.windows:
                self._draft.fill(window.start, window.labels.cpu())
            self._next_round()

    def result(self) -> NDArray[np.integer]:
        return self._draft.result()

    def _num_unknown(self) -> int:
        return int((~self._draft.known).sum())

    def _next_round(self) -> None:
        self.windows = [
            Window(self._draft, start, self._spec, self._signal_kept, self._head)
            for start in self._draft.next_windows()
        ]


def draw_masks(
    network: MaskDenoiser,
    requests: Sequence[MaskRequest],
    generators: Sequence[torch.Generator],
    config: MaskGeneratorConfig,
    spec: DataSpec,
    signal_kept: Tensor,
) -> list[NDArray[np.integer]]:
    """Whole masks, all advancing together: each step is one batched denoising of every draft's current windows."""
    runs = [
        MaskRun(request, generator, config, spec, signal_kept, network.labels)
        for request, generator in zip(requests, generators, strict=True)
    ]
    while unfinished := [run for run in runs if run.rows]:
        advance_masks(network, unfinished, config, signal_kept)
    return [run.result() for run in runs]


@torch.no_grad()
def advance_masks(
    network: MaskDenoiser,
    runs: Sequence[MaskRun],
    config: MaskGeneratorConfig,
    signal_kept: Tensor,
    width: int | None = None,
) -> None:
    """One denoising step of every run's windows, `width` windows in a batch."""
    for windows, filled_up in batches([window for run in runs for window in run.windows], width):
        clean, labels = predict_clean(network, filled_up, config, signal_kept)
        for number, window in enumerate(windows):
            window.denoising.take(clean[number : number + 1])
            window.labels = labels[number].where(window.unknown[0] > 0, window.labels)
    for run in runs:
        run.settle()


def predict_clean(
    network: MaskDenoiser, windows: Sequence[Window], config: MaskGeneratorConfig, signal_kept: Tensor
) -> tuple[Tensor, Tensor]:
    """The clean signal [B, C, m, H, W] and the likeliest labels [B, m, H, W]."""
    names = ("clean", "valid", "indicator", "unknown", "position", "depth")
    clean, valid, indicator, unknown, position, depth = (
        torch.stack([getattr(window, name) for window in windows]) for name in names
    )
    noisy = torch.cat([window.denoising.noisy for window in windows])
    steps = torch.tensor([window.denoising.step for window in windows], device=noisy.device)

    def run(shown: Tensor, hidden: Tensor | None) -> Tensor:
        held = clean if hidden is None else indicator * hidden + (1 - indicator) * clean
        seen = unknown * noisy + (1 - unknown) * held
        features: Tensor = network(seen, shown * clean, shown, valid, position, depth, steps)
        return features

    features, free = run(indicator, None), None
    if config.guidance != 1:
        noise = torch.stack([window.hiding_noise for window in windows if window.hiding_noise is not None])
        free = run(torch.zeros_like(indicator), add_noise(clean, noise, steps, signal_kept))
    decoded, labels = network.labels.decode(features, free, config.guidance)
    return unknown * decoded + (1 - unknown) * clean, labels
