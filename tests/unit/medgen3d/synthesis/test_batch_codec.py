from dataclasses import replace

import numpy as np

from medgen3d.artifacts.planned_case import plan_case
from medgen3d.synthesis.batch_codec import InFlightBatch, begin, from_row, source_row, to_row

PLANS = [plan_case(0, number, [(2, 3, 4, 1), (5, 1, 1, 1)]) for number in range(6)]


def test_a_batch_survives_its_journey_as_a_row():
    rng = np.random.default_rng(0)
    cases = [
        replace(
            case,
            mask=rng.integers(0, 300, case.plan.shape).astype(np.uint16),
            image=rng.normal(size=case.plan.shape).astype(np.float32),
        )
        for case in begin(PLANS)
    ]
    cases[2] = replace(cases[2], failure="no luck", note='with "quotes" and ü')
    cases[3] = replace(cases[3].rejected("holes", "too many"), scores={"limits": 0.0}, earlier_rejections={"holes": 2})
    arrived = from_row(to_row(InFlightBatch(key=7, wanted=[1, 2], cases=cases, error="stop")))

    assert len({plan.shape for plan in PLANS}) == 2
    assert (arrived.key, arrived.wanted, arrived.error) == (7, [1, 2], "stop")
    for found, sent in zip(arrived.cases, cases, strict=True):
        assert (found.plan, found.failure, found.note) == (sent.plan, sent.failure, sent.note)
        for field in ("rejections", "scores", "earlier_rejections"):
            assert getattr(found, field) == getattr(sent, field)
        np.testing.assert_array_equal(found.mask, sent.mask)
        np.testing.assert_array_equal(found.image, sent.image)


def test_a_batch_that_is_only_planned_travels_without_arrays():
    row = source_row(InFlightBatch(key=3, wanted=[18], cases=begin(PLANS)))

    assert row.keys() == {"work"}
    assert [case.plan for case in from_row(row).cases] == PLANS
