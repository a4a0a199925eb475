import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.manifest import ManifestRow, columns_of
from medgen3d.artifacts.planned_case import case_id_of
from medgen3d.synthesis.case_ledger import DONE, FAILED, MAX_LOSSES, MISSING, BatchSpec, CaseLedger


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
    assert fresh(6).next_items(10) == [
        BatchSpec(numbers=(0, 1, 2, 3), wanted=(0, 1, 2, 3)),
        BatchSpec(numbers=(4, 5, 6, 7), wanted=(4, 5)),
    ]
    assert len(fresh(100).next_items(3)) == 3


def test_rejected_cases_are_drawn_again_alone_and_before_new_batches():
    standing = fresh(8)
    standing.take([row(0, "done"), row(1, "rejected", holes=1), row(2, "done"), row(3, "rejected", 1, holes=2)])

    first, second, third = standing.next_items(10)
    assert (first, second) == (
        BatchSpec(numbers=(1,), wanted=(1,), redraw=1),
        BatchSpec(numbers=(3,), wanted=(3,), redraw=2),
    )
    assert third.numbers == (4, 5, 6, 7)
    assert standing.rejections == {1: {"holes": 1}, 3: {"holes": 2}}


def test_a_damaged_case_is_drawn_as_it_was_whether_with_its_batch_or_alone():
    standing = fresh(4)
    standing.take([row(number, "done", redraws) for number, redraws in enumerate((0, 2, 0, 0))])
    standing.damaged([1, 3])

    assert standing.next_items(10) == [
        BatchSpec(numbers=(1,), wanted=(1,), redraw=2),
        BatchSpec(numbers=(0, 1, 2, 3), wanted=(3,)),
    ]


def test_a_batch_that_kills_its_workers_is_tried_again_whole_and_then_case_by_case():
    standing = fresh(2, width=2)
    (batch,) = standing.next_items(10)
    for _ in range(MAX_LOSSES):
        assert standing.next_items(10) == [batch]
        assert not standing.lose(batch)
    (first,) = standing.next_items(10)
    assert (first.numbers, first.wanted) == ((0,), (0,))
    assert first.note
    assert [standing.lose(first) for _ in range(MAX_LOSSES)] == [False, True]
    standing.take([row(0, "failed")])
    (second,) = standing.next_items(10)
    assert (second.numbers, second.wanted) == ((1,), (1,))


def test_the_manifest_tells_what_is_done_and_given_up_cases_come_back_only_when_asked_for():
    known = fresh(4)
    known.take([row(0, "done"), row(1, "failed"), row(2, "failed", 3, volume=4), row(3, "rejected", 1, volume=2)])
    table = table_of([row(0, "done"), row(1, "failed"), row(2, "failed", 3, volume=4), row(3, "rejected", 1, volume=2)])
    standing = CaseLedger.of(table, 4, 4, 3)

    assert standing.status.tolist() == known.status.tolist()
    assert standing.rejections == known.rejections
    assert standing.missing.tolist() == [3]
    assert (standing.count(DONE), standing.count(FAILED)) == (1, 2)
    standing.retry()
    assert standing.missing.tolist() == [1, 2, 3]
    assert standing.status[2] == MISSING
    assert standing.rejections == {3: {"volume": 2}}


def test_more_redraws_reopen_cases_that_were_given_up_for_want_of_them():
    table = table_of([row(0, "failed"), row(1, "failed", 3, volume=4)])

    assert CaseLedger.of(table, 2, 4, 3).missing.tolist() == []
    assert CaseLedger.of(table, 2, 4, 5).next_items(9) == [BatchSpec(numbers=(1,), wanted=(1,), redraw=4)]


def test_a_smaller_number_of_cases_leaves_the_others_alone():
    table = table_of([row(number, "done") for number in range(6)])
    assert CaseLedger.of(table, 3, 4, 3).count(DONE) == 3


@given(statuses=st.lists(st.sampled_from(["done", "failed", "rejected", None]), max_size=30), width=st.integers(1, 9))
def test_exactly_the_missing_cases_are_wanted_each_once(statuses, width):
    standing = fresh(len(statuses), width)
    standing.take([row(number, status) for number, status in enumerate(statuses) if status])
    wanted = [number for item in standing.next_items(10**6) for number in item.wanted]

    expected = [number for number, status in enumerate(statuses) if status in ("rejected", None)]
    assert sorted(wanted) == expected
    assert np.array_equal(standing.missing, expected)


def table_of(rows):
    return columns_of(rows)


@pytest.mark.parametrize("count", [1, 7])
def test_nothing_is_next_when_all_is_done(count):
    standing = fresh(count)
    standing.take([row(number, "done") for number in range(count)])
    assert standing.next_items(5) == []
