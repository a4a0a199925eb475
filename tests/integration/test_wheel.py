"""The wheel is what images install: it holds the two packages whole and nothing besides."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import medgen3d

ROOT = Path(__file__).parents[2]
PACKAGES = {"medgen3d": ROOT / "platform/medgen3d", "medgen3d_stages": ROOT / "stages/medgen3d_stages"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves its own folders beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("platform", "stages"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", source / "wheels", source], check=True)
    (built,) = (source / "wheels").iterdir()
    return built


def test_the_wheel_holds_every_file_of_the_two_packages_and_no_other_package(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert wheel.name == f"medgen3d-{medgen3d.__version__}-py3-none-any.whl"


def test_the_installed_wheel_runs_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert Path(run("-c", "import medgen3d; print(medgen3d.__file__)")).is_relative_to(site)
    assert Path(run("-c", "import medgen3d_stages; print(medgen3d_stages.__file__)")).is_relative_to(site)
    assert "Usage: " in run("-m", "medgen3d", "--help")
    assert "builtin/hippocampus" in run("-m", "medgen3d", "pipelines")
    paths = "from medgen3d.serving.api import page; print(*(route.path for route in page.router.routes))"
    assert {"/", "/page/app.js", "/page/style.css"} <= set(run("-c", paths).split())
