"""An engine that draws in the service's own process, one order at a time: for one user, and for tests."""

import asyncio
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.config.experiment import CHAIN
from medgen3d.serving.engine import CaseOrder, Loaded, Order, Progress
from medgen3d.serving.offers import Offers, Resolve
from medgen3d_stages.arrays import Image, Mask
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, refine

Pair = tuple[Image, Mask]
_KEPT = 2  # pipelines whose networks stay in memory


class _StoppedError(Exception):
    """The order was cancelled; raised between two passes of a network."""


class LocalEngine:
    """Draws in a thread of this process.

    Args:
        references: The pipelines that are offered.
        resolve: Finds one, such as `medgen3d.registry.pipeline.resolve_pipeline` of a registry.
        batch: Cases of an order that advance in lock-step.
        threads: Torch threads.
        device: Where networks lie.
    """

    def __init__(
        self,
        references: Sequence[str],
        resolve: Resolve,
        *,
        batch: int = 8,
        threads: int = 1,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        self._offers = Offers(references, resolve, batch=batch, threads=threads, device=device)
        self._batch = batch
        self._threads = threads
        self._device = device
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._stages: dict[str, dict[str, TrainedStage]] = {}
        self._stop = threading.Event()

    async def pipelines(self) -> list[Loaded]:
        """The pipelines that are offered."""
        return [offer.loaded for offer in await asyncio.to_thread(self._offers.all)]

    async def find(self, reference: str) -> Loaded:
        """What a client's reference means now.

        Raises:
            RegistryError: There is no such pipeline, or it is not offered.
        """
        return (await asyncio.to_thread(self._offers.find, reference)).loaded

    async def accepted(self, reference: str) -> Loaded:
        """The version that a job was accepted for, whether it is still offered or not.

        Raises:
            RegistryError: It is gone.
        """
        return (await asyncio.to_thread(self._offers.accepted, reference)).loaded

    async def run(self, order: Order, progress: Progress) -> list[Pair]:
        """Draw all cases; a second attempt goes on after the last batch that the first one finished."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def tell(stage: str, done: int, units: int) -> None:
            loop.call_soon_threadsafe(progress, stage, done, units)

        try:
            return await loop.run_in_executor(self._worker, self._draw, order, tell, stop)
        finally:
            stop.set()

    def _draw(self, order: Order, tell: Progress, stop: threading.Event) -> list[Pair]:
        self._stop = stop  # orders are drawn one at a time, in this thread
        stages = self._trained(order.pipeline)
        total = sum(case.shape[0] for case in order.cases)
        drawn: list[Pair] = []
        done = 0
        for first in range(0, len(order.cases), self._batch):
            cases = order.cases[first : first + self._batch]
            slices = sum(case.shape[0] for case in cases)
            drawn += self._batch_of(stages, cases, order.folder / f"batch-{first:05d}.npz", tell, (done, slices, total))
            done += slices
        return drawn

    def _batch_of(
        self,
        stages: Mapping[str, TrainedStage],
        cases: Sequence[CaseOrder],
        kept: Path,
        tell: Progress,
        amounts: tuple[int, int, int],
    ) -> list[Pair]:
        before, slices, total = amounts

        def finished(stage: str) -> None:
            tell(stage, before + slices, total)

        if kept.exists():
            for stage in CHAIN:
                finished(stage)
            return _read(kept, len(cases))
        if not before:
            for stage in CHAIN:
                tell(stage, 0, total)
        masks = [case.mask for case in cases if case.mask is not None]
        if not masks:
            shapes, seeds = [case.shape for case in cases], _seeds(cases, "mask_generator")
            masks = draw_masks(stages["mask_generator"], shapes, seeds, [dict(case.given) for case in cases])
        finished("mask_generator")
        styles = [case.style_seed for case in cases]
        seeds = _seeds(cases, "image_sequence_generator")
        images = draw_images(stages["image_sequence_generator"], masks, seeds, styles)
        finished("image_sequence_generator")
        images = refine(stages["refiner"], images, masks, _seeds(cases, "refiner"))
        pairs = list(zip(images, masks, strict=True))
        _write(kept, pairs)
        finished("refiner")
        return pairs

    def _trained(self, reference: str) -> dict[str, TrainedStage]:
        if reference not in self._stages:
            import torch

            torch.set_num_threads(self._threads)
            bundles = self._offers.accepted(reference).pipeline.bundles
            stages = {stage: read_bundle(bundles[stage]).trained_stage(self._device) for stage in CHAIN}
            for stage in stages.values():
                for network in stage.networks.values():
                    network.register_forward_pre_hook(self._stop_here)
            while len(self._stages) >= _KEPT:
                self._stages.pop(next(iter(self._stages)))
            self._stages[reference] = stages
        return self._stages[reference]

    def _stop_here(self, *_: Any) -> None:
        """Called before every pass of a network, so that a cancelled order ends within a denoising step."""
        if self._stop.is_set():
            raise _StoppedError


def _seeds(cases: Sequence[CaseOrder], stage: str) -> list[int]:
    return [case.seeds[stage] for case in cases]


def _write(path: Path, pairs: Sequence[Pair]) -> None:
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # an attempt taken for dead may still write
    arrays: dict[str, Image | Mask] = {f"image_{number}": image for number, (image, _) in enumerate(pairs)}
    arrays |= {f"mask_{number}": mask for number, (_, mask) in enumerate(pairs)}
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    unfinished.replace(path)


def _read(path: Path, count: int) -> list[Pair]:
    with np.load(path, allow_pickle=False) as kept:
        return [(kept[f"image_{number}"], kept[f"mask_{number}"]) for number in range(count)]
