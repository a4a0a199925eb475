"""A SQLite registry of its own for every test, and a way to fill it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medgen3d.config.experiment import CHAIN
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.tracking import Tracking, start_run
from medgen3d.registry.versions import Version


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path) -> Tracking:
    root = tmp_path / "medgen3d runs"  # a folder name with a space is as good as any
    root.mkdir()
    shutil.copy(empty_database, root)
    return Tracking(uri=f"sqlite:///{root}/mlflow.db", artifact_root=root / "artifacts")


@pytest.fixture(scope="session")
def stock(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, write_toy_bundle: Callable[..., Path]
) -> Tracking:
    """Version 1 of every stage's toy bundle, registered once for all tests."""
    root = tmp_path_factory.mktemp("stock")
    shutil.copy(empty_database, root)
    stocked = Tracking(uri=f"sqlite:///{root}/mlflow.db", artifact_root=root / "artifacts")
    for stage in CHAIN:
        run_id = start_run(stocked, "toy", stage, tags={}, params={})
        register_bundle(stocked, write_toy_bundle(root / "bundle", stage, seed=1, parent_run=run_id))
    return stocked


@pytest.fixture
def stocked_tracking(tmp_path: Path, stock: Tracking) -> Tracking:
    """A copy of the stocked registry. Its artifacts are those of `stock`: a test must not change version 1's."""
    shutil.copy(stock.artifact_root.parent / "mlflow.db", tmp_path)
    return Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=stock.artifact_root)


@pytest.fixture
def register(tmp_path: Path, tracking: Tracking, write_toy_bundle: Callable[..., Path]) -> Callable[..., Version]:
    """register(stage, seed, **fields of the dataset): a toy bundle, registered from a run of its own."""

    def register_one(stage: str = "mask_generator", seed: int = 0, **dataset: object) -> Version:
        run_id = start_run(tracking, "toy", stage, tags={}, params={})
        root = write_toy_bundle(tmp_path / "bundle", stage, seed, run_id, **dataset)
        return register_bundle(tracking, root)

    return register_one
