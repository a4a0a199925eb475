"""Continuous batching on one device: a step advances a batch of samples, and between steps samples join and leave."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgen3d_stages.chain import TrainedStage
    from medgen3d_stages.contract import SampleRun


class SupersededError(Exception):
    """A later attempt at the same sample took this one's place. args: (key,)."""


@dataclass(eq=False, slots=True)
class Slot:
    """A sample among those that advance.

    run: What it is and how far; read it between awaits only.
    finished: Its result, or why there is none.
    """

    key: str
    trained: "TrainedStage"
    run: "SampleRun"
    finished: asyncio.Future[Any]


class ContinuousBatcher:
    """Advances samples on one device from one thread; its methods are called from one event loop.

    The oldest samples go first, as many as fill a device batch of `width` rows. Several pipelines take turns, batch by
    batch. Batches always have the same width, so that no sample depends on the others (`SteppedStage.advance`).

    Args:
        width: Rows of a device batch.
        begin_thread: Called once in the device's thread before anything else there.
        stepped: Called after each step with the rows that samples took of its batch.
    """

    def __init__(
        self,
        width: int,
        begin_thread: Callable[[], None] = lambda: None,
        stepped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._width = width
        self._stepped = stepped
        self._device = ThreadPoolExecutor(1, "device", begin_thread)
        self._slots: list[Slot] = []
        self._last_batches: dict[int, int] = {}  # id of a stage of a living sample -> number of its last batch
        self._num_batches = 0
        self._loop: asyncio.Task[None] | None = None
        self._step_began: float | None = None

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def step_seconds(self) -> float:
        """How long the current step has taken; 0 if there is none. A device that hangs shows here."""
        return 0.0 if self._step_began is None else time.monotonic() - self._step_began

    async def join(self, key: str, trained: "TrainedStage", item: Any, seed: int) -> Slot:
        """Let a sample take part from the next step on. Whoever joins leaves, whatever happens.

        Args:
            key: Whose; an older sample of the same key is given up, since only a lost caller leaves one behind.
            trained: The stage that draws it.
            item: What, as `TrainedStage.begin` takes it.
            seed: Of its stream.

        Raises:
            ValueError: The stage cannot draw this.
        """
        for older in [slot for slot in self._slots if slot.key == key]:
            self.leave(older)
            if not older.finished.done():
                older.finished.set_exception(SupersededError(key))
        run = await self._on_device(trained.begin, item, seed)
        slot = Slot(key, trained, run, asyncio.get_running_loop().create_future())
        self._slots.append(slot)
        if self._loop is None:
            self._loop = asyncio.create_task(self._advance())
        return slot

    def leave(self, slot: Slot) -> None:
        """Take no further step with it; the device is free of it once the current step is over."""
        if slot in self._slots:
            self._slots.remove(slot)

    async def _advance(self) -> None:
        try:
            while batch := self._next_batch():
                self._step_began = time.monotonic()
                await self._step(batch)
                for slot in batch:
                    if not slot.run.rows:
                        await self._finish(slot)
        finally:
            self._loop, self._step_began = None, None

    def _next_batch(self) -> list[Slot]:
        """The oldest samples of the next pipeline that fit into one batch; at least one."""
        if not self._slots:
            return []
        first = min(self._slots, key=lambda slot: self._last_batches.get(id(slot.trained), 0)).trained
        self._num_batches += 1
        living = {id(slot.trained) for slot in self._slots}
        self._last_batches = {each: last for each, last in self._last_batches.items() if each in living}
        self._last_batches[id(first)] = self._num_batches
        batch: list[Slot] = []
        num_free = self._width
        for slot in self._slots:
            if slot.trained is first and (slot.run.rows <= num_free or not batch):
                batch.append(slot)
                num_free -= slot.run.rows
        return batch

    async def _step(self, batch: list[Slot]) -> None:
        num_rows = sum(slot.run.rows for slot in batch)
        try:
            await self._on_device(batch[0].trained.advance, [slot.run for slot in batch], self._width)
        except Exception as error:  # whatever went wrong: the others of the batch must not be lost with the culprit
            if len(batch) == 1:
                self._fail(batch[0], error)
                return
            for slot in batch:
                await self._step([slot])
        else:
            self._stepped(num_rows)

    async def _finish(self, slot: Slot) -> None:
        self.leave(slot)
        if slot.finished.done():
            return
        try:
            slot.finished.set_result(await self._on_device(slot.run.result))
        except Exception as error:
            self._fail(slot, error)

    def _fail(self, slot: Slot, error: Exception) -> None:
        self.leave(slot)
        if not slot.finished.done():
            slot.finished.set_exception(error)

    async def _on_device(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._device, function, *arguments)
