"""Samples that share a device, with counters in slot of networks."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import pytest

from medgen3d.serving.inference.continuous_batching import ContinuousBatcher, SupersededError


@dataclass(eq=False)
class Counter:
    """A run of some steps that takes some rows of each batch."""

    steps: int
    rows_per_step: int = 1
    done: int = 0
    broken: bool = False

    @property
    def total(self) -> int:
        return self.steps

    @property
    def rows(self) -> int:
        return self.rows_per_step if self.done < self.steps else 0

    def result(self) -> str:
        return f"{self.done} steps"


@dataclass(eq=False)
class Counting:
    """A stage that counts; it notes the batches that it is given, and may take its time or wait."""

    seconds: float = 0.0
    gate: threading.Event | None = None
    batches: list[list[Counter]] = field(default_factory=list)
    widths: set[int] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)

    def begin(self, item: Counter, seed: int) -> Counter:
        if item.steps < 1:
            raise ValueError("a sample needs a step")
        return item

    def advance(self, runs: list[Counter], width: int) -> None:
        if self.gate:
            self.gate.wait(10)
        time.sleep(self.seconds)
        if any(run.broken for run in runs):
            raise RuntimeError("broken")
        self.batches.append(list(runs))
        self.widths.add(width)
        self.threads.add(threading.current_thread().name)
        for run in runs:
            run.done += 1


def drawing(device: ContinuousBatcher, stage: Counting, *items: Counter) -> list:
    """Let all items join at once, and wait for what becomes of them."""

    async def one(number: int, item: Counter) -> object:
        slot = await device.join(f"key {number}", stage, item, seed=0)
        return await slot.finished

    async def together() -> list:
        return await asyncio.gather(*(one(*each) for each in enumerate(items)), return_exceptions=True)

    return asyncio.run(together())


def test_samples_that_fit_advance_in_one_batch_and_each_ends_with_its_own_result():
    stage = Counting(seconds=0.01)
    assert drawing(ContinuousBatcher(4), stage, Counter(3), Counter(5), Counter(2)) == ["3 steps", "5 steps", "2 steps"]
    assert max(map(len, stage.batches)) == 3
    assert stage.widths == {4}
    assert len(stage.threads) == 1


def test_the_rows_that_samples_take_of_each_batch_are_told():
    told: list[int] = []
    drawing(ContinuousBatcher(4, stepped=told.append), Counting(), Counter(2), Counter(1, rows_per_step=2))
    assert sum(told) == 2 + 2
    assert max(told) <= 3


def test_the_oldest_go_first_as_many_as_fill_the_batch():
    stage = Counting(gate=threading.Event())
    items = [Counter(5, rows_per_step=2), Counter(2, rows_per_step=2), Counter(4, rows_per_step=1)]

    async def run() -> None:
        device = ContinuousBatcher(3)
        slots = [await device.join("0", stage, items[0], 0)]
        joining = [asyncio.create_task(device.join(str(number), stage, items[number], 0)) for number in (1, 2)]
        await asyncio.sleep(0.05)  # the first step waits at the gate, and with it whoever wants to join
        stage.gate.set()
        slots += [await each for each in joining]
        await asyncio.gather(*(slot.finished for slot in slots))

    asyncio.run(run())
    assert stage.batches[0] == [items[0]]
    assert [items[0], items[2]] in stage.batches  # of three rows two are taken: the second sample does not fit
    assert not any(items[0] in batch and items[1] in batch for batch in stage.batches)
    assert items[1] not in stage.batches[4]  # the first sample's last step
    assert items[1] in stage.batches[5]


def test_a_sample_that_alone_is_wider_than_the_batch_still_advances():
    assert drawing(ContinuousBatcher(1), Counting(), Counter(2, rows_per_step=2)) == ["2 steps"]


def test_who_leaves_takes_no_further_step_and_does_not_hold_the_others_up():
    stage = Counting(seconds=0.01)

    async def run() -> tuple[Counter, str]:
        device = ContinuousBatcher(2)
        long = await device.join("long", stage, Counter(1000), 0)
        short = await device.join("short", stage, Counter(5), 0)
        device.leave(long)
        done = long.run.done
        await short.finished
        assert long.run.done <= done + 1  # the step under way
        assert device.num_slots == 0
        return short.finished.result()

    assert asyncio.run(run()) == "5 steps"


def test_pipelines_take_turns():
    one, other, third = Counting(), Counting(), Counting()
    order: list[Counting] = []
    for stage in (one, other, third):
        stage.advance = lambda runs, width, stage=stage: (order.append(stage), Counting.advance(stage, runs, width))

    async def run() -> None:
        device = ContinuousBatcher(4)
        slots = [await device.join(str(id(stage)), stage, Counter(3), 0) for stage in (one, other, third)]
        await asyncio.gather(*(slot.finished for slot in slots))

    asyncio.run(run())
    assert [order.count(stage) for stage in (one, other, third)] == [3, 3, 3]
    last_of_first = max(slot for slot, stage in enumerate(order) if stage is one)
    assert third in order[:last_of_first]


def test_only_the_culprit_of_a_broken_batch_fails():
    stage = Counting()
    found = drawing(ContinuousBatcher(4), stage, Counter(3), Counter(3, broken=True), Counter(3))
    assert found[0] == found[2] == "3 steps"
    assert str(found[1]) == "broken"


def test_what_cannot_begin_is_told_at_once():
    (error,) = drawing(ContinuousBatcher(1), Counting(), Counter(0))
    assert isinstance(error, ValueError)


def test_a_later_attempt_takes_the_place_of_an_earlier_one():
    stage = Counting(seconds=0.01)

    async def run() -> None:
        device = ContinuousBatcher(4)
        earlier = await device.join("case", stage, Counter(1000), 0)
        later = await device.join("case", stage, Counter(2), 0)
        with pytest.raises(SupersededError):
            await earlier.finished
        assert await later.finished == "2 steps"
        assert device.num_slots == 0

    asyncio.run(run())


def test_a_device_that_hangs_shows():
    stage = Counting(gate=threading.Event())

    async def run() -> None:
        device = ContinuousBatcher(1)
        assert device.step_seconds() == 0
        slot = await device.join("case", stage, Counter(1), 0)
        await asyncio.sleep(0.1)
        assert device.step_seconds() > 0.05
        stage.gate.set()
        await slot.finished
        await asyncio.sleep(0)
        assert device.step_seconds() == 0

    asyncio.run(run())


def test_the_devices_thread_is_made_ready_before_anything_runs_in_it():
    seen = []
    drawing(ContinuousBatcher(1, lambda: seen.append(threading.current_thread().name)), stage := Counting(), Counter(2))
    assert set(seen) == stage.threads
    assert len(seen) == 1
