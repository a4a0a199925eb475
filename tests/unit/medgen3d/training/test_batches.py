import pytest
import torch

from medgen3d.artifacts.examples import read_example
from medgen3d.config.training import Augmentation
from medgen3d.training import batches as batches_module
from medgen3d.training.batches import ExampleSet, StepSampler, batches


def numbers(step: int = 0, steps: int = 4, batch_size: int = 3, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    return list(StepSampler(step, steps, batch_size, rank, world_size))


def test_each_step_takes_the_next_examples():
    assert numbers(steps=3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert len(StepSampler(1, 3, 5, 0, 1)) == 2


def test_a_resumed_run_takes_what_an_uninterrupted_one_takes():
    for step in range(5):
        assert numbers(step=step) == numbers()[step:]
    assert numbers(step=9) == []
    assert len(StepSampler(9, 4, 1, 0, 1)) == 0


def test_two_ranks_share_what_one_rank_takes_with_twice_the_batch():
    first, second, alone = numbers(rank=0, world_size=2), numbers(rank=1, world_size=2), numbers(batch_size=6)
    assert [one + two for one, two in zip(first, second, strict=True)] == alone


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_an_example_is_a_pure_function_of_seed_and_number(prepared, refiner):
    one, two, other = (ExampleSet.of(prepared, refiner, seed) for seed in (3, 3, 4))
    backwards = [two[number] for number in reversed(range(12))]
    for number in range(12):
        assert equal(one[number], backwards[11 - number])
    assert not all(equal(one[number], other[number]) for number in range(12))


def case_of(example: dict[str, torch.Tensor]) -> int:
    """The image of case n is n / 10 everywhere."""
    return round(float(example["image"].mean()) * 10)


def test_every_pass_visits_each_training_case_once_in_an_order_of_its_own(prepared, refiner):
    examples = ExampleSet.of(prepared, refiner, seed=0)
    passes = [[case_of(examples[5 * turn + place]) for place in range(5)] for turn in range(6)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in passes)  # the test split is never seen
    assert len({tuple(order) for order in passes}) > 1


def test_a_case_is_cut_anew_in_every_pass(prepared, gan):
    # Also where it takes the same place in two passes.
    examples, cuts = ExampleSet.of(prepared, gan, seed=0), {}
    for number in range(100):
        example = examples[number]
        case_and_place = (float(example["images"].max()), number % 5)
        cuts.setdefault(case_and_place, []).append((example["position"].tolist(), example["present"].tolist()))
    repeated = [windows for windows in cuts.values() if len(windows) > 2]
    assert all(any(window != windows[0] for window in windows) for windows in repeated)
    assert len(repeated) > 10


def test_few_open_files_change_nothing(prepared, refiner, monkeypatch):
    expected = [ExampleSet.of(prepared, refiner, 0)[number] for number in range(10)]
    monkeypatch.setattr(batches_module, "OPEN_CASES", 1)
    examples = ExampleSet.of(prepared, refiner, 0)
    assert all(equal(examples[number], example) for number, example in enumerate(expected))


def test_whole_arrays_are_kept_up_to_a_number_of_bytes(prepared, refiner, monkeypatch):
    monkeypatch.setattr(batches_module, "CACHE_BYTES", 1)
    asked = []

    def read(case_id):
        asked.append(case_id)
        return read_example(prepared, case_id)

    examples = ExampleSet(prepared.info.case_ids("train")[:2], read, refiner, seed=0)
    for number in range(8):
        examples[number]
    assert len(asked) >= 4  # with room for one, the other has to be read again
    monkeypatch.setattr(batches_module, "CACHE_BYTES", 2**31)
    asked.clear()
    for number in range(8):
        examples[number]
    assert len(asked) <= 1


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_batch_stacks_the_examples_of_a_step_whoever_loads_them(prepared, refiner, loader_workers):
    examples = ExampleSet.of(prepared, refiner, 0)
    loaded = list(batches(examples, StepSampler(1, 3, 2, 1, 2), loader_workers))
    # Steps 1 and 2 of rank 1 of 2, with 2 examples each: numbers 6, 7 and 10, 11.
    for batch, pair in zip(loaded, [(6, 7), (10, 11)], strict=True):
        assert equal(batch, {key: torch.stack([examples[number][key] for number in pair]) for key in batch})


def test_bent_cases_are_bent_anew_in_every_pass_from_streams_of_their_own(prepared, gan):
    straight, one, two = (ExampleSet.of(prepared, gan, 0, Augmentation(bend_mm=bend)) for bend in (0.0, 3.0, 3.0))
    masks = [(straight[number]["masks"], one[number]["masks"]) for number in range(20)]
    assert any(not torch.equal(before, after) for before, after in masks)
    assert all(equal(one[number], two[number]) for number in reversed(range(20)))
    # The same windows are cut as without bending.
    assert all(torch.equal(straight[number]["position"], one[number]["position"]) for number in range(20))
