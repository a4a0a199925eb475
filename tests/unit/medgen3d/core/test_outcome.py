import pickle

import pytest

from medgen3d.core.errors import ArtifactError
from medgen3d.core.outcome import Outcome


def halved(number: int) -> int:
    if number % 2:
        raise ArtifactError("numbers.txt", f"{number}", "an even number", "Add one.")
    return number // 2


def test_work_that_ends_well_gives_its_result_also_after_a_journey_between_processes():
    outcome = pickle.loads(pickle.dumps(Outcome.of(halved, 8)))
    assert (outcome.unwrap(), outcome.sentence) == (4, "")


def test_an_error_of_ours_is_carried_and_raised_as_it_was():
    outcome = pickle.loads(pickle.dumps(Outcome.of(halved, 7)))
    assert outcome.sentence == "numbers.txt: found 7, expected an even number. Add one."
    with pytest.raises(ArtifactError, match="found 7"):
        outcome.unwrap()


def test_a_bug_is_not_carried_but_raised_at_once():
    with pytest.raises(TypeError):
        Outcome.of(halved, "eight")
