"""The import rules hold, and each of them bites: sources that break every rule are reported rule by rule."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
# One line that breaks the rule, inside a function where that could hide it.
VIOLATIONS = {
    "The platform may import the stages, never the reverse": ("medgen3d_stages/arrays.py", "import medgen3d.core"),
    "Platform layers; a new module must declare its place here": (
        "medgen3d/ingest/__init__.py",
        "def late():\n    import medgen3d.training",
    ),
    "Rooms of serving; a new one must declare its place here": (
        "medgen3d/serving/queue/__init__.py",
        "def late():\n    import medgen3d.serving.execution.runner",
    ),
    "Stage layers; a new module must declare its place here": (
        "medgen3d_stages/layers/__init__.py",
        "import medgen3d_stages.refiner",
    ),
    "One stage reads like another": (
        "medgen3d_stages/refiner/network.py",
        "def late():\n    import medgen3d_stages.refiner.stage",
    ),
    "A stage's config is read without torch": ("medgen3d_stages/mask_generator/config.py", "import torch"),
    "Stages know torch and MONAI, nothing of clusters, files or HTTP": (
        "medgen3d_stages/contract.py",
        "def late():\n    import yaml",
    ),
    "Ray only below a verb's on_ray and in recipes": (
        "medgen3d/training/__init__.py",
        "def late():\n    import ray.data",
    ),
    "MONAI only through medgen3d_stages.monai_parts": ("medgen3d_stages/chain.py", "import monai.data"),
    "MLflow only in the registry": ("medgen3d/training/__init__.py", "def late():\n    from mlflow import log_metric"),
    "FastAPI only in serving": ("medgen3d/recipes/__init__.py", "import fastapi"),
    "nibabel only in artifacts/nifti.py and nifti_header.py": ("medgen3d/ingest/__init__.py", "import nibabel"),
}


def lint(sources: Path) -> str:
    """Run import-linter on packages that lie in a folder of their own; return what it says."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    command += ["--config", ROOT / "pyproject.toml"]
    environment = os.environ | {"PYTHONPATH": str(sources), "COLUMNS": "200"}
    return subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False).stdout


def broken_contracts(sources: Path) -> list[str]:
    shown = lint(sources)
    assert "Contracts: " in shown, shown
    return [name for name in CONTRACTS if f"{name} BROKEN" in shown]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for package in ("platform/medgen3d", "stages/medgen3d_stages"):
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_rule_holds(sources: Path) -> None:
    assert broken_contracts(sources) == []


def test_every_rule_bites(sources: Path) -> None:
    assert sorted(VIOLATIONS) == sorted(CONTRACTS), "a new rule needs a line here that breaks it"
    for path, line in VIOLATIONS.values():
        with (sources / path).open("a") as file:
            file.write(f"\n{line}\n")
    assert broken_contracts(sources) == CONTRACTS


@pytest.mark.parametrize(
    ("module", "rule"),
    [
        ("medgen3d/utils.py", "Platform layers; a new module must declare its place here"),
        ("medgen3d/serving/utils.py", "Rooms of serving; a new one must declare its place here"),
        ("medgen3d_stages/utils.py", "Stage layers; a new module must declare its place here"),
        ("medgen3d_stages/refiner/utils.py", "One stage reads like another"),
    ],
)
def test_a_module_without_a_declared_place_is_refused(sources: Path, module: str, rule: str) -> None:
    (sources / module).touch()
    assert broken_contracts(sources) == [rule]


@pytest.mark.parametrize("module", ["sampler", "objective", "network", "config", "stage"])
def test_a_stage_without_one_of_the_common_modules_is_refused(sources: Path, module: str) -> None:
    (sources / "medgen3d_stages" / "refiner" / f"{module}.py").unlink()
    assert f"module medgen3d_stages.refiner.{module} does not exist" in lint(sources)
