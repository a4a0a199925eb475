"""A whole usefulness study on a real local cluster, through the command line, with networks that learn nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.artifacts.usefulness_results import UsefulnessResults, read_usefulness, write_usefulness
from medgen3d.config.load import load_config
from medgen3d.core.hashing import sha256_of
from medgen3d.evaluation.usefulness import usefulness
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import list_models

pytestmark = pytest.mark.timeout(600)  # Ray takes long to start on a busy machine

NUM_PAIRS = 3


@pytest.fixture(scope="module", params=["all", pytest.param("4,all", marks=pytest.mark.soak)])
def sizes(request) -> str:
    """Of four cases a generator is trained; the pairs of the generator with all cases are there from the beginning."""
    return request.param


@pytest.fixture(scope="module")
def root(ray_cluster, sizes, tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("usefulness")


@pytest.fixture(scope="module")
def prepared(prepared_heads, root) -> PreparedSet:
    (root / "prepared").symlink_to(prepared_heads.root)
    return prepared_heads


def study(root: Path, sizes: str, *words: str) -> str:
    """Run the command in this process and on its cluster; what it says on stdout."""
    choices = ("--sizes", sizes, "--seeds", "1", "--synthetic", str(NUM_PAIRS), "--preset", "smoke")
    places = ("--data", root / "prepared", "--out", root / "study", "--set", f"storage.root={root / 'store'}")
    result = CliRunner().invoke(cli.app, [*map(str, ("usefulness", *places, *choices, *words))])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def said(root, sizes, prepared, copy_as_pairs) -> str:
    """What the study said."""
    folder = f"n{len(prepared.info.case_ids('train')):03d}"
    copy_as_pairs(prepared, prepared.info.case_ids("train")[:NUM_PAIRS], root / "study" / folder / "pairs")
    return study(root, sizes)


@pytest.fixture
def results(said, root) -> UsefulnessResults:
    return read_usefulness(root / "study")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_every_arm_and_size_has_its_trial(results, prepared, sizes):
    all_cases = len(prepared.info.case_ids("train"))
    shown = sorted((trial.num_cases, trial.arm, trial.seed) for trial in results.trials)
    few = [(4, "real"), (4, "real+synthetic")] if sizes != "all" else []
    arms = [*few, *((all_cases, arm) for arm in ("real", "real+synthetic", "synthetic"))]
    assert shown == [(*each, 0) for each in arms]
    assert all(0 <= dice <= 1 for trial in results.trials for dice in trial.dice.values())


@pytest.mark.parametrize("sizes", ["4,all"], indirect=True)
@pytest.mark.soak
def test_the_generator_of_four_cases_has_seen_these_and_no_others(results, root, prepared):
    subset = PreparedSet(root / "study" / "n004" / "prepared")
    assert len(subset.info.case_ids()) == 4
    assert set(subset.info.case_ids()) < set(prepared.info.case_ids("train"))
    pairs = SyntheticSet(root / "study" / "n004" / "pairs")
    assert len(pairs.case_ids) == NUM_PAIRS
    assert pairs.info.dataset_digest == results.sizes[0].dataset_digest == subset.digest != prepared.digest


def test_pairs_that_were_there_are_used_and_no_generator_is_trained_for_them(results, root, prepared):
    size = results.sizes[-1]
    assert (size.num_cases, size.pipeline.version) == (len(prepared.info.case_ids("train")), 7)
    assert [path.name for path in (root / "study" / f"n{size.num_cases:03d}").iterdir()] == ["pairs"]


def test_generators_stay_out_of_the_users_registry_and_the_trials_are_logged_there(results, root):
    store = load_config(overrides=[f"storage.root={root / 'store'}"]).storage
    tracking = Tracking.of(store)
    assert list_models(tracking) == []
    run = tracking.client().get_run(str(results.mlflow_run))
    assert run.info.status == "FINISHED"
    for trial in results.trials:
        arm = trial.arm.replace("+", "_and_")
        assert run.data.metrics[f"dice/{arm}/{trial.num_cases:03d}"] == pytest.approx(trial.mean_dice)
    assert {metric.name for metric in usefulness(results).section.metrics} <= run.data.metrics.keys()


def test_what_was_measured_is_shown(said, results):
    assert f"usefulness.gain.{results.num_train}" in said
    assert "real+synthetic" in said


def test_the_same_command_runs_nothing_again(said, root, sizes):
    before = contents(root)
    assert "usefulness.tstr_ratio" in study(root, sizes)
    assert contents(root) == before


def test_a_trial_that_is_missing_is_run_alone_and_comes_to_the_same(said, root, sizes, results):
    lost = results.trials[0]
    write_usefulness(root / "study", results.model_copy(update={"trials": results.trials[1:]}))
    parts = [contents(folder) for folder in (root / "study").glob("n*")]
    assert "1 trials of 4 steps" in study(root, sizes, "--dry-run")
    study(root, sizes)
    again = read_usefulness(root / "study")
    assert again.trials[:-1] == results.trials[1:]
    assert again.trials[-1].model_copy(update={"seconds": lost.seconds}) == lost
    assert [contents(folder) for folder in (root / "study").glob("n*")] == parts
