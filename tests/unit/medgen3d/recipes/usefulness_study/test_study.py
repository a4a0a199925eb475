"""A study that is finished: the same call runs nothing, and needs neither Ray nor MLflow."""

from dataclasses import replace

import pytest

from medgen3d.artifacts.usefulness_results import FILE, Trial, write_usefulness
from medgen3d.core.errors import DataError
from medgen3d.recipes.usefulness_study.generator import make_pairs
from medgen3d.recipes.usefulness_study.plan import plan_study
from medgen3d.recipes.usefulness_study.study import run_study


def not_shown(*_: object) -> None:
    raise AssertionError("nothing may begin")


@pytest.fixture
def study(prepared, config, tmp_path):
    return plan_study(prepared.root, tmp_path / "study", config, sizes="all", num_seeds=1, num_pairs=2)


def finished(study):
    return [
        Trial(arm=trial.arm, num_cases=6, seed=trial.seed, dice={"bright": 0.5, "dark": 0.6}, seconds=1)
        for trial in study.trials
    ]


def test_a_finished_study_is_read_and_nothing_is_run(study, tmp_path):
    results = study.nothing_yet.with_trials(finished(study))
    write_usefulness(study.out, results)
    before = (study.out / FILE).stat().st_mtime_ns
    assert run_study(study, not_shown) == results
    assert (study.out / FILE).stat().st_mtime_ns == before
    assert not (tmp_path / "store").exists()


def test_trials_are_not_added_to_those_of_other_pairs(study, prepared, config, write_pairs):
    (size,) = study.sizes
    write_pairs(size.pairs, prepared.digest, 2)
    made = make_pairs(size, prepared, 2, config, not_shown)
    other = made.model_copy(update={"pairs_seed": 5})
    write_usefulness(study.out, study.nothing_yet.with_size(other).with_trials(finished(study)[:1]))
    with pytest.raises(DataError, match="other pairs than those of the trials"):
        run_study(replace(study, config=config), not_shown)
