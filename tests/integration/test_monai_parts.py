"""What MONAI loads along is left out, in processes of their own: this one has loaded it already."""

import subprocess
import sys

from medgen3d_stages.monai_parts import OPTIONAL


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_the_packages_that_monai_does_not_need_are_neither_loaded_nor_lost():
    said = run(
        "import sys; import medgen3d_stages.monai_parts as parts\n"
        "print(*[name for name in parts.OPTIONAL if name in sys.modules])\n"
        "import mlflow, scipy.signal\n"
        "print(mlflow.__name__)"
    )
    assert said.splitlines() == ["", "mlflow"]


def test_all_of_monai_is_there_for_who_imported_it_before():
    assert run("import monai, sys; import medgen3d_stages.monai_parts; print('mlflow' in sys.modules)") == "True\n"
    assert "mlflow" in OPTIONAL
