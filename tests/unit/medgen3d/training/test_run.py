import pytest

from medgen3d.config.load import load_config
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.training.run import FILE, TrainingRun, begin, find, put_aside


def described(prepared, *overrides: str, name: str | None = "first") -> TrainingRun:
    return TrainingRun.of(name, "refiner", prepared, load_config(presets=["smoke"], overrides=overrides))


def test_a_run_that_was_never_begun_is_itself_and_nothing_is_written(prepared, tmp_path):
    run = described(prepared)
    assert find(run, tmp_path) == run
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_begun_is_found_again_with_its_mlflow_run(prepared, tmp_path):
    begun = begin(described(prepared), tmp_path, "abc")
    assert find(described(prepared), tmp_path) == begun
    assert begun.mlflow_run == "abc"


def test_what_does_not_decide_the_weights_may_differ(prepared, tmp_path):
    begin(described(prepared), tmp_path, "abc")
    other = (
        "mask_generator.window=6",
        "training.mask_generator.steps=9",
        "cluster.threads=2",
        "storage.root=elsewhere",
        "refiner.start=0.9",
        "refiner.fusion=average",
    )
    assert find(described(prepared, *other), tmp_path).mlflow_run == "abc"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("refiner.crop=8", r"refiner\.crop 16, but now it is 8"),
        ("refiner.channels=[8, 24]", r"refiner\.channels \[8, 16\], but now it is \[8, 24\]"),
        ("training.refiner.batch_size=3", r"training\.refiner\.batch_size 2, but now it is 3"),
        ("seed=1", "seed 0, but now it is 1"),
        ("cluster.num_workers=2", "num_workers 1, but now it is 2"),
    ],
)
def test_what_decides_the_weights_must_not_differ(prepared, tmp_path, change, said):
    begin(described(prepared), tmp_path, "abc")
    with pytest.raises(DataError, match=said) as caught:
        find(described(prepared, change), tmp_path)
    assert "first.refiner" in str(caught.value)


def test_without_a_name_runs_of_other_settings_are_other_runs(prepared):
    same = described(prepared, name=None), described(prepared, "training.mask_generator.steps=9", name=None)
    other = described(prepared, "training.refiner.steps=9", name=None)
    resampled = described(prepared, "refiner.start=0.9", name=None)
    assert same[0].name == same[1].name == resampled.name != other.name
    assert other.name.startswith("grey-")


def test_a_damaged_run_file_is_refused(prepared, tmp_path):
    begin(described(prepared), tmp_path, "abc")
    (tmp_path / "first.refiner" / FILE).write_text("{")
    with pytest.raises(ArtifactError, match=r"run\.json.*another --name"):
        find(described(prepared), tmp_path)


def test_a_run_that_is_put_aside_is_kept_and_the_next_one_begins(prepared, tmp_path):
    for mlflow_run in ("abc", "def"):
        begin(described(prepared), tmp_path, mlflow_run)
        put_aside(described(prepared), tmp_path)
        assert find(described(prepared), tmp_path).mlflow_run is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.refiner.before-1", "first.refiner.before-2"]
    put_aside(described(prepared), tmp_path)  # there is nothing
