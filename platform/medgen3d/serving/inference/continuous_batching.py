"""One device and many samples: each step advances a batch of them, and between steps samples join and leave."""

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

    The oldest samples go first, as many as fill a device batch of `width` rows. Several pipelines take turns. Batches
    always have the same width, so that no sample depends on the others (`SteppedStage.advance`).

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
        self._places: list[Slot] = []
        self._turns: dict[int, int] = {}  # id of a stage of a living sample -> its last turn
        self._turn = 0
        self._loop: asyncio.Task[None] | None = None
        self._step_began: float | None = None

    @property
    def num_places(self) -> int:
        return len(self._places)

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
        for older in [place for place in self._places if place.key == key]:
            self.leave(older)
            if not older.finished.done():
                older.finished.set_exception(SupersededError(key))
        run = await self._on_device(trained.begin, item, seed)
        place = Slot(key, trained, run, asyncio.get_running_loop().create_future())
        self._places.append(place)
        if self._loop is None:
            self._loop = asyncio.create_task(self._advance())
        return place

    def leave(self, place: Slot) -> None:
        """Take no further step with it; the device is free of it once the current step is over."""
        if place in self._places:
            self._places.remove(place)

    async def _advance(self) -> None:
        try:
            while turn := self._next_turn():
                self._step_began = time.monotonic()
                await self._step(turn)
                for place in turn:
                    if not place.run.rows:
                        await self._finish(place)
        finally:
            self._loop, self._step_began = None, None

    def _next_turn(self) -> list[Slot]:
        """The oldest samples of the next pipeline that fit into one batch; at least one."""
        if not self._places:
            return []
        first = min(self._places, key=lambda place: self._turns.get(id(place.trained), 0)).trained
        self._turn += 1
        living = {id(place.trained) for place in self._places}
        self._turns = {each: turn for each, turn in self._turns.items() if each in living} | {id(first): self._turn}
        turn: list[Slot] = []
        num_free = self._width
        for place in self._places:
            if place.trained is first and (place.run.rows <= num_free or not turn):
                turn.append(place)
                num_free -= place.run.rows
        return turn

    async def _step(self, turn: list[Slot]) -> None:
        num_rows = sum(place.run.rows for place in turn)
        try:
            await self._on_device(turn[0].trained.advance, [place.run for place in turn], self._width)
        except Exception as error:  # whatever went wrong: the others of the batch must not be lost with the culprit
            if len(turn) == 1:
                self._fail(turn[0], error)
                return
            for place in turn:
                await self._step([place])
        else:
            self._stepped(num_rows)

    async def _finish(self, place: Slot) -> None:
        self.leave(place)
        if place.finished.done():
            return
        try:
            place.finished.set_result(await self._on_device(place.run.result))
        except Exception as error:
            self._fail(place, error)

    def _fail(self, place: Slot, error: Exception) -> None:
        self.leave(place)
        if not place.finished.done():
            place.finished.set_exception(error)

    async def _on_device(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._device, function, *arguments)
