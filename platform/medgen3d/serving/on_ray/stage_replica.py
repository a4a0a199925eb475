"""One stage of the chain as a Serve deployment: its models, and the device on which cases advance together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray.serve import metrics

from medgen3d.serving.inference.continuous_batching import ContinuousBatcher
from medgen3d.serving.inference.model_cache import ModelCache

if TYPE_CHECKING:
    from medgen3d_stages.chain import TrainedStage

Told = tuple[int, int] | str | NDArray[Any]
"""(units done, units in all); at last the array, or a sentence why it can never be drawn."""
_TELL_S = 0.2


class StageReplica:
    """A process that draws one stage.

    Args:
        stage: Which.
        load: Loads the stage of a pipeline's version onto the device.
        warm: References of the versions to load, and to draw a first step with, before the process counts as ready.
        width: Rows of a device batch.
        threads: Of torch.
        max_bytes: Weights that are kept in memory.
        step_timeout_s: A step that takes longer means that the device hangs.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        stage: str,
        load: Callable[[str], "TrainedStage"],
        warm: Callable[[], Sequence[str]],
        *,
        width: int,
        threads: int,
        max_bytes: int,
        step_timeout_s: float,
    ) -> None:
        import torch

        def begin_thread() -> None:
            torch.set_num_threads(threads)  # Ray would derive it from the replica's logical CPUs

        begin_thread()
        self._stage, self._width, self._step_timeout_s = stage, width, step_timeout_s
        self._device = ContinuousBatcher(width, begin_thread, _counted())
        self._models = ModelCache(load, max_bytes)
        for reference in await asyncio.to_thread(warm):
            await self.prepare(reference)

    async def prepare(self, reference: str) -> None:
        """Load a version and take a first step with it, so that no case waits for either.

        Raises:
            Medgen3dError: It cannot be found or is damaged.
            Exception: The step failed.
        """
        trained = await self._models.get(reference)
        slot = await self._device.join(f"prepare {reference}", trained, _first_item(self._stage, trained), seed=0)
        while not slot.run.done and not slot.finished.done():
            await asyncio.sleep(0.01)
        self._device.leave(slot)
        if slot.finished.done():
            slot.finished.result()  # raises what went wrong in the step

    async def draw(self, reference: str, key: str, seed: int, *inputs: Any) -> AsyncIterator[Told]:
        """Draw one case; leaving the iterator, or cancelling, frees the device after the current step.

        Args:
            reference: Version of the pipeline.
            key: Of the case. A second call with it takes the place of the first, whose caller must be lost.
            seed: Of the case in this stage.
            inputs: Shape and given slices; mask and style seed; or image and mask.
        """
        trained = await self._models.get(reference)
        try:
            slot = await self._device.join(key, trained, _ITEMS[self._stage](*inputs), seed)
        except ValueError as error:
            yield f"{self._stage}: {error}"
            return
        try:
            yield slot.run.done, slot.run.total
            while not (await asyncio.wait([slot.finished], timeout=_TELL_S))[0]:
                yield slot.run.done, slot.run.total
            array = slot.finished.result()
            sound = bool(np.isfinite(np.sum(array)))  # of values in [-1, 1] or labels; one pass and no second array
            yield array if sound else f"{self._stage} gave NaN or infinite numbers; its training probably diverged"
        finally:
            self._device.leave(slot)
            slot.finished.cancel()

    def check_health(self) -> None:
        """Called by Serve from time to time; a process that raises is replaced."""
        seconds = self._device.step_seconds()
        if seconds > self._step_timeout_s:
            raise RuntimeError(f"a step of {self._stage} has taken {seconds:.0f} s; its device seems to hang")


def _counted() -> Callable[[int], None]:
    """Figures for Prometheus of how well device batches are filled; Serve adds which stage and which process it is."""
    steps = metrics.Counter("medgen3d_serving_steps", description="Batches that a device has advanced")
    rows = metrics.Counter("medgen3d_serving_rows", description="Rows of these batches that cases took")

    def stepped(num_rows: int) -> None:
        steps.inc()
        rows.inc(num_rows)

    return stepped


def _mask_item(shape: tuple[int, int, int], given: Mapping[int, Any]) -> Any:
    from medgen3d_stages.mask_generator.sampler import MaskRequest

    return MaskRequest(shape=shape, given=dict(given))


def _image_item(mask: Any, style_seed: int | None) -> Any:
    from medgen3d_stages.image_sequence_generator.sampler import ImageRequest

    return ImageRequest(mask=mask, style_seed=style_seed)


def _refine_item(image: Any, mask: Any) -> Any:
    from medgen3d_stages.refiner.sampler import RefineRequest

    return RefineRequest(image=image, mask=mask)


_ITEMS: dict[str, Callable[..., Any]] = {
    "mask_generator": _mask_item,
    "image_sequence_generator": _image_item,
    "refiner": _refine_item,
}


def _first_item(stage: str, trained: "TrainedStage") -> Any:
    """A thin case of the whole plane."""
    shape = (2, *trained.stage.spec.plane)
    mask, image = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    inputs: dict[str, tuple[Any, ...]] = {
        "mask_generator": (shape, {}),
        "image_sequence_generator": (mask, None),
        "refiner": (image, mask),
    }
    return _ITEMS[stage](*inputs[stage])
