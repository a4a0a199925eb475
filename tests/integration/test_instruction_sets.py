"""A case does not depend on what is drawn next to it, whichever instructions a CPU has for it (decision 9).

torch and oneDNN choose their kernels when a process starts, so each set of instructions has a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1] / "unit" / "medgen3d_stages" / "test_stepping.py"
ONEDNN = {"DEFAULT": "SSE41", "AVX2": "AVX2", "AVX512": "AVX512_CORE"}
"""What torch calls a set of instructions -> what oneDNN calls it; each holds those before it."""


@pytest.mark.parametrize("name", ONEDNN)
def test_runs_do_not_depend_on_their_neighbours(name: str):
    own, known = torch.backends.cpu.get_cpu_capability(), list(ONEDNN)
    if known.index(name) > (known.index(own) if own in known else 0):
        pytest.skip(f"this CPU has no {name}, only {own}")
    chosen = {"ATEN_CPU_CAPABILITY": name.lower(), "ONEDNN_MAX_CPU_ISA": ONEDNN[name]}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "among_others",
        str(TESTS),
    ]
    done = subprocess.run(words, env=os.environ | chosen, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "14 passed" in done.stdout
