import asyncio
import time

import pytest
import torch

from medgen3d.serving.inference.model_cache import ModelCache, num_bytes
from medgen3d_stages.chain import TrainedStage


def trained(num_floats: int) -> TrainedStage:
    return TrainedStage(stage=None, networks={"net": torch.nn.Linear(num_floats, 1, bias=False)})


class Shelf:
    """Networks of 100 floats (400 bytes) by name; counts how often each is loaded."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def __call__(self, reference: str) -> TrainedStage:
        time.sleep(0.01)
        self.loads.append(reference)
        if reference == "damaged":
            raise OSError("damaged")
        return trained(100)


def test_memory_is_that_of_parameters_and_buffers():
    assert num_bytes(trained(100)) == 400
    assert num_bytes(TrainedStage(stage=None, networks={"norm": torch.nn.BatchNorm1d(10)})) == 4 * 10 * 4 + 8


def test_what_is_kept_is_not_loaded_again_and_the_least_recently_used_is_given_up():
    shelf = Shelf()

    async def run() -> list[str]:
        models = ModelCache(shelf, max_bytes=800)
        for reference in ("one", "two", "one", "three", "one", "two"):
            await models.get(reference)
        return models.references

    assert asyncio.run(run()) == ["one", "two"]
    assert shelf.loads == ["one", "two", "three", "two"]


def test_a_pipeline_that_alone_is_too_large_is_kept_as_long_as_no_other_is_wanted():
    async def run() -> list[str]:
        models = ModelCache(Shelf(), max_bytes=100)
        await models.get("one")
        assert models.references == ["one"]
        await models.get("two")
        return models.references

    assert asyncio.run(run()) == ["two"]


def test_many_who_want_the_same_one_at_once_have_it_loaded_once():
    shelf = Shelf()

    async def run() -> list[TrainedStage]:
        models = ModelCache(shelf, max_bytes=800)
        return await asyncio.gather(*(models.get("one") for _ in range(20)))

    assert len({id(each) for each in asyncio.run(run())}) == 1
    assert shelf.loads == ["one"]


def test_one_that_cannot_be_loaded_harms_no_other():
    async def run() -> None:
        models = ModelCache(Shelf(), max_bytes=800)
        with pytest.raises(OSError, match="damaged"):
            await models.get("damaged")
        await models.get("one")
        assert models.references == ["one"]

    asyncio.run(run())
