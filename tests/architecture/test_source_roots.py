"""`platform/` and `stages/` are folders of packages, not packages; Python has a module named platform of its own."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["platform/__init__.py", "stages/__init__.py", "platform.py"])
def test_nothing_shadows_pythons_own_platform_module(path: str) -> None:
    assert not (ROOT / path).exists(), f"{path} must not exist: with it Python, pytest and Ray's workers break here"


def test_import_platform_at_the_root_finds_the_standard_library() -> None:
    command = [sys.executable, "-c", "import platform; print(platform.__file__); platform.system()"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).is_relative_to(sysconfig.get_path("stdlib"))
