"""How whole masks are drawn: one window, then extensions forwards and backwards, many volumes in lock-step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import child, normal, one_hot
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.sampler import denoise
from medgen3d_stages.diffusion.schedule import visited_steps
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
        self.mask = torch.zeros((self.depth, *spec.plane), dtype=torch.long)
        self.known = torch.zeros(self.depth, dtype=torch.bool)
        for index, plane in request.given.items():
            self.mask[index, self.rows, self.columns] = torch.from_numpy(plane.astype(np.int64))
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
        """Take over a drawn window [m, H, W]; slices that are known stay as they are."""
        stop = min(start + self.config.window, self.depth)
        fresh = ~self.known[start:stop]
        self.mask[start:stop][fresh] = window[: stop - start][fresh]
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


@torch.no_grad()
def draw_masks(
    network: MaskDenoiser,
    requests: Sequence[MaskRequest],
    generators: Sequence[torch.Generator],
    config: MaskGeneratorConfig,
    spec: DataSpec,
    signal_kept: Tensor,
) -> list[NDArray[np.integer]]:
    """Whole masks, all advancing together: each round is one batched denoising of every draft's next windows."""
    drafts = [Draft(request, config, spec, generator) for request, generator in zip(requests, generators, strict=True)]
    while tasks := [(draft, start) for draft in drafts for start in draft.next_windows()]:
        windows = draw_windows(network, tasks, config, spec, signal_kept)
        for (draft, start), window in zip(tasks, windows, strict=True):
            draft.fill(start, window)
    return [draft.result() for draft in drafts]


def draw_windows(
    network: MaskDenoiser,
    tasks: list[tuple[Draft, int]],
    config: MaskGeneratorConfig,
    spec: DataSpec,
    signal_kept: Tensor,
) -> Tensor:
    """One window per task, [len(tasks), m, H, W] integer labels on the CPU."""
    device = next(network.parameters()).device
    generators = [child(draft.generator) for draft, _ in tasks]
    condition = {name: torch.stack(rows).to(device) for name, rows in _conditions(tasks, config, spec).items()}
    valid = condition["valid"][:, None].float()
    indicator = condition["known"][:, None, :, None, None].float() * valid
    clean = 2 * one_hot(condition["mask"], spec.num_labels) - 1
    unknown = valid * (1 - indicator)
    fixed_noise = normal(clean.shape[1:], generators, device)
    first_noise = normal(clean.shape[1:], generators, device)

    def run(noisy: Tensor, step: int, shown: Tensor, hidden: Tensor | None) -> Tensor:
        steps = torch.full((len(tasks),), step, device=device)
        held = clean if hidden is None else indicator * hidden + (1 - indicator) * clean
        seen = unknown * noisy + (1 - unknown) * held
        logits = network(seen, shown * clean, shown, valid, condition["position"], condition["depth"], steps)
        return 2 * logits.float().softmax(dim=1) - 1

    def predict_clean(noisy: Tensor, step: int) -> Tensor:
        decoded = run(noisy, step, indicator, None)
        if config.guidance != 1:
            kept = signal_kept[step]
            hidden = kept.sqrt() * clean + (1 - kept).sqrt() * fixed_noise
            free = run(noisy, step, torch.zeros_like(indicator), hidden)
            decoded = (free + config.guidance * (decoded - free)).clamp(-1, 1)
        return unknown * decoded + (1 - unknown) * clean

    steps = visited_steps(config.diffusion_steps - 1, config.sampling_steps)
    final = denoise(first_noise, steps, signal_kept, predict_clean, config.sampler, generators)
    return final.argmax(dim=1).cpu()


def _conditions(tasks: list[tuple[Draft, int]], config: MaskGeneratorConfig, spec: DataSpec) -> dict[str, list[Tensor]]:
    rows: dict[str, list[Tensor]] = {name: [] for name in ("mask", "valid", "known", "position", "depth")}
    for draft, start in tasks:
        inside = min(config.window, draft.depth - start)
        mask = torch.zeros((config.window, *spec.plane), dtype=torch.long)
        mask[:inside] = draft.mask[start : start + inside]
        known = torch.zeros(config.window, dtype=torch.bool)
        known[:inside] = draft.known[start : start + inside]
        valid = torch.zeros(mask.shape, dtype=torch.bool)
        valid[:inside, draft.rows, draft.columns] = True
        rows["mask"].append(mask)
        rows["valid"].append(valid)
        rows["known"].append(known)
        rows["position"].append((torch.arange(start, start + config.window) + 0.5) / draft.depth)
        rows["depth"].append(torch.tensor(draft.depth / spec.max_depth))
    return rows
