from pathlib import Path

import pytest

from medgen3d.core.errors import ConfigError, DataError
from medgen3d.recipes.demo import plan_demo


def test_planning_writes_nothing(tmp_path: Path):
    plan_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_everything_lies_in_the_demos_folder_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    demo = plan_demo(tmp_path / "demo", ["storage.root=/elsewhere"])
    folders = (demo.phantoms, demo.prepared, demo.pairs, demo.report, demo.config.storage.root)
    assert len(set(folders)) == 5
    assert all(folder.parent == tmp_path / "demo" for folder in folders)
    assert demo.config.storage.tracking_uri == f"sqlite:///{tmp_path}/demo/runs/mlflow.db"


def test_a_demo_is_continued_with_the_same_settings_only(tmp_path: Path):
    (tmp_path / "demo.yaml").write_text(plan_demo(tmp_path).config.to_yaml())
    assert plan_demo(tmp_path).out == tmp_path
    with pytest.raises(DataError, match="other settings"):
        plan_demo(tmp_path, ["training.refiner.steps=7"])


def test_a_folder_or_file_of_somebody_else_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(DataError, match="holds no demo"):
            plan_demo(path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_wrong_setting_is_refused_before_anything_begins(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean"):
        plan_demo(tmp_path / "demo", ["refiner.crp=3"])
