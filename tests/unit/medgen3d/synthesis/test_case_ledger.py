import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.manifest import ManifestRow, columns_of
from medgen3d.artifacts.planned_case import case_id_of
from medgen3d.synthesis.case_ledger import MAX_LOSSES, BatchSpec, CaseLedger


def row(number, status, redraws=0, **rejections):
    return ManifestRow(
        case_id=case_id_of(number),
        number=number,
        shape=(1, 1, 1),
        status=status,
        redraws=redraws,
        rejections=rejections,
    )


def fresh(count, width=4, max_redraws=3):
    return CaseLedger.of(None, count, width, max_redraws)


def test_a_new_set_is_drawn_in_whole_batches_of_which_the_last_may_be_wanted_in_part():
    assert fresh(6).next_batches(10) == [
        BatchSpec(numbers=(0, 1, 2, 3), wanted=(0, 1, 2, 3)),
        BatchSpec(numbers=(4, 5, 6, 7), wanted=(4, 5)),
    ]
    assert len(fresh(100).next_batches(3)) == 3


def test_rejected_cases_are_drawn_again_alone_and_before_new_batches():
    ledger = fresh(8)
    ledger.record([row(0, "done"), row(1, "rejected", holes=1), row(2, "done"), row(3, "rejected", 1, holes=2)])

    first, second, third = ledger.next_batches(10)
    assert (first, second) == (
        BatchSpec(numbers=(1,), wanted=(1,), redraw=1),
        BatchSpec(numbers=(3,), wanted=(3,), redraw=2),
    )
    assert third.numbers == (4, 5, 6, 7)
    assert ledger.rejections == {1: {"holes": 1}, 3: {"holes": 2}}


def test_a_damaged_case_is_drawn_as_it_was_whether_with_its_batch_or_alone():
    ledger = fresh(4)
    ledger.record([row(number, "done", redraws) for number, redraws in enumerate((0, 2, 0, 0))])
    ledger.record_damage([1, 3])

    assert ledger.next_batches(10) == [
        BatchSpec(numbers=(1,), wanted=(1,), redraw=2),
        BatchSpec(numbers=(0, 1, 2, 3), wanted=(3,)),
    ]


def test_a_batch_that_kills_its_workers_is_tried_again_whole_and_then_case_by_case():
    ledger = fresh(2, width=2)
    (batch,) = ledger.next_batches(10)
    for _ in range(MAX_LOSSES):
        assert ledger.next_batches(10) == [batch]
        assert not ledger.record_loss(batch)
    (first,) = ledger.next_batches(10)
    assert (first.numbers, first.wanted) == ((0,), (0,))
    assert first.note
    assert [ledger.record_loss(first) for _ in range(MAX_LOSSES)] == [False, True]
    ledger.record([row(0, "failed")])
    (second,) = ledger.next_batches(10)
    assert (second.numbers, second.wanted) == ((1,), (1,))


def test_the_manifest_tells_what_is_done_and_given_up_cases_come_back_only_when_asked_for():
    known = fresh(4)
    known.record([row(0, "done"), row(1, "failed"), row(2, "failed", 3, volume=4), row(3, "rejected", 1, volume=2)])
    table = table_of([row(0, "done"), row(1, "failed"), row(2, "failed", 3, volume=4), row(3, "rejected", 1, volume=2)])
    ledger = CaseLedger.of(table, 4, 4, 3)

    assert [ledger.statuses[number] for number in range(4)] == ["done", "failed", "failed", "rejected"]
    assert ledger.rejections == known.rejections
    assert ledger.missing.tolist() == [3]
    assert (ledger.count(CaseStatus.DONE), ledger.count(CaseStatus.FAILED)) == (1, 2)
    ledger.retry_failed()
    assert ledger.missing.tolist() == [1, 2, 3]
    assert ledger.statuses[2] == CaseStatus.MISSING
    assert ledger.rejections == {3: {"volume": 2}}


def test_more_redraws_reopen_cases_that_were_given_up_for_want_of_them():
    table = table_of([row(0, "failed"), row(1, "failed", 3, volume=4)])

    assert CaseLedger.of(table, 2, 4, 3).missing.tolist() == []
    assert CaseLedger.of(table, 2, 4, 5).next_batches(9) == [BatchSpec(numbers=(1,), wanted=(1,), redraw=4)]


def test_a_smaller_number_of_cases_leaves_the_others_alone():
    table = table_of([row(number, "done") for number in range(6)])
    assert CaseLedger.of(table, 3, 4, 3).count(CaseStatus.DONE) == 3


@given(statuses=st.lists(st.sampled_from(["done", "failed", "rejected", None]), max_size=30), width=st.integers(1, 9))
def test_exactly_the_missing_cases_are_wanted_each_once(statuses, width):
    ledger = fresh(len(statuses), width)
    ledger.record([row(number, status) for number, status in enumerate(statuses) if status])
    wanted = [number for batch in ledger.next_batches(10**6) for number in batch.wanted]

    expected = [number for number, status in enumerate(statuses) if status in ("rejected", None)]
    assert sorted(wanted) == expected
    assert np.array_equal(ledger.missing, expected)


def table_of(rows):
    return columns_of(rows)


@pytest.mark.parametrize("count", [1, 7])
def test_nothing_is_next_when_all_is_done(count):
    ledger = fresh(count)
    ledger.record([row(number, "done") for number in range(count)])
    assert ledger.next_batches(5) == []
