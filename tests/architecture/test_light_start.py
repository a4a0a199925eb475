"""Importing the package or asking for help must not wait for libraries that take seconds to load."""

import subprocess
import sys

import pytest

REPORT = "import sys; print(*sorted({'torch', 'ray', 'mlflow', 'monai'} & set(sys.modules)), file=sys.stderr)"
MAKING = ["phantom", "ingest", "train", "pipeline", "pipelines", "synthesize"]
COMMANDS = [*MAKING, "usefulness", "evaluate", "config", "demo", "tokens", "request"]


def loaded_by(program: str) -> tuple[str, list[str]]:
    """Run a program in a new interpreter; return what it printed and which heavy libraries it had loaded at its end."""
    source = f"import atexit\natexit.register(lambda: exec({REPORT!r}))\n{program}"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr.split()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import medgen3d")[1] == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    arguments = ["medgen3d", *command.split(), "--help"]
    shown, heavy = loaded_by(f"import sys\nsys.argv = {arguments}\nfrom medgen3d.cli import main\nmain()")
    assert "Usage: medgen3d" in shown
    assert heavy == []


def test_this_check_would_see_a_heavy_import() -> None:
    assert loaded_by("import sys\nsys.modules['torch'] = sys")[1] == ["torch"]
