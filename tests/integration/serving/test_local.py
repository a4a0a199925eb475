"""The local engine with real, small networks: what it draws is the chain's, and it can be stopped and go on."""

import asyncio
import io
import time
import zipfile

import numpy as np
import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import CHAIN
from medgen3d.serving.engine import Order
from medgen3d.serving.local import LocalEngine
from medgen3d.serving.orders import plan_cases
from medgen3d.serving.schemas import JobRequest
from medgen3d_stages.chain import draw_pairs


@pytest.fixture
def resolve(tiny_pipeline):
    pipeline = Pipeline(name="knee", version=3, notice="", info=None, bundles=dict(tiny_pipeline))
    return lambda reference: pipeline


@pytest.fixture
def engine(resolve) -> LocalEngine:
    return LocalEngine(["knee"], resolve, batch=2)


def order_of(engine, folder, **changes):
    loaded = asyncio.run(engine.find("knee"))
    folder.mkdir(exist_ok=True)
    request = JobRequest(pipeline="knee", **{"count": 3, "seed": 5} | changes)
    cases = plan_cases(request, loaded, None)
    return Order(job_id="0" * 32, pipeline=loaded.reference, cases=cases, folder=folder)


def drawn(engine, order, progress=lambda *_: None):
    return asyncio.run(engine.run(order, progress))


def same(one, other) -> bool:
    return all(
        np.array_equal(image, other_image) and np.array_equal(mask, other_mask)
        for (image, mask), (other_image, other_mask) in zip(one, other, strict=True)
    )


def test_what_is_drawn_is_what_the_chain_draws(engine, tiny_pipeline, tmp_path):
    order = order_of(engine, tmp_path / "work")
    stages = {stage: read_bundle(root).trained_stage() for stage, root in tiny_pipeline.items()}
    expected = []
    for cases in (order.cases[:2], order.cases[2:]):  # batches of two
        seeds = {stage: [case.seeds[stage] for case in cases] for stage in CHAIN}
        expected += draw_pairs(stages, [case.shape for case in cases], seeds)
    assert same(drawn(engine, order), expected)


def test_progress_comes_to_the_whole_of_every_stage(engine, tmp_path):
    told: list[tuple[str, int, int]] = []
    order = order_of(engine, tmp_path / "work")
    drawn(engine, order, lambda *what: told.append(what))
    slices = sum(case.shape[0] for case in order.cases)
    assert [told[-3 + place] for place in range(3)] == [(stage, slices, slices) for stage in CHAIN]
    for stage in CHAIN:
        done = [units for name, units, _ in told if name == stage]
        assert done == sorted(done)


def test_a_second_attempt_goes_on_from_what_the_first_one_finished(engine, tmp_path):
    whole = drawn(engine, order_of(engine, tmp_path / "undisturbed"))
    order = order_of(engine, tmp_path / "work")
    drawn(engine, order)
    (tmp_path / "work" / "batch-00002.npz").unlink()  # as if it had died before this was there
    began = (tmp_path / "work" / "batch-00000.npz").stat().st_mtime_ns
    assert same(drawn(engine, order), whole)
    assert (tmp_path / "work" / "batch-00000.npz").stat().st_mtime_ns == began


def test_a_style_is_shared_by_pairs_and_a_whole_mask_is_kept(engine, tmp_path):
    order = order_of(engine, tmp_path / "work", style=1)
    other = order_of(engine, tmp_path / "other", style=2)
    assert not same(drawn(engine, order), drawn(engine, other))
    mask = drawn(engine, order)[0][1]
    loaded = asyncio.run(engine.find("knee"))
    _, volume = loaded.dataset.as_volumes(np.zeros(mask.shape, np.float32), mask)
    full = plan_cases(JobRequest(pipeline="knee", mask_use="full"), loaded, volume)
    (tmp_path / "full").mkdir()
    ((_, kept),) = drawn(engine, Order(job_id="1" * 32, pipeline="knee@3", cases=full, folder=tmp_path / "full"))
    np.testing.assert_array_equal(kept, mask)
    partial = plan_cases(JobRequest(pipeline="knee", mask_use="partial", known_slices=[1]), loaded, volume)
    (tmp_path / "partial").mkdir()
    ((_, filled),) = drawn(
        engine, Order(job_id="2" * 32, pipeline="knee@3", cases=partial, folder=tmp_path / "partial")
    )
    np.testing.assert_array_equal(filled[1], mask[1])


def test_a_cancelled_order_frees_the_device_between_two_passes_of_a_network(engine, tmp_path):
    order = order_of(engine, tmp_path / "work", count=400, seed=1)  # minutes of work
    next_one = order_of(engine, tmp_path / "next", count=1)
    drawn(engine, next_one)  # networks are loaded

    async def cancelled() -> float:
        running = asyncio.create_task(engine.run(order, lambda *_: None))
        await asyncio.sleep(0.5)
        running.cancel()
        at = time.monotonic()
        await engine.run(next_one, lambda *_: None)  # kept, so it takes no time once the device is free
        return time.monotonic() - at

    assert asyncio.run(cancelled()) < 1.0


def test_a_service_with_real_networks_answers_over_http(make_server, resolve, tmp_path):
    with make_server(tmp_path / "serving", LocalEngine(["knee"], resolve)) as served, served.client() as client:
        answer = client.post("/v1/pairs", json={"pipeline": "knee", "count": 2, "seed": 5})
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path / "set")
    found = SyntheticSet(tmp_path / "set")
    assert found.case_ids == ["syn_00000", "syn_00001"]
    assert (found.info.batch, found.info.threads, found.info.device) == (8, 1, "cpu")
    found.read("syn_00001")
