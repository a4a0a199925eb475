"""The memory that `benchmarks/scale.py` counts is the memory that a process takes, within a quarter.

The same work is done once without contents and once for real on a CPU, in float32, in a process of its own; there the
peak is what the process has had resident at most, less what it had before.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCALE = Path(__file__).parents[2] / "benchmarks" / "scale.py"
BEFORE = """
import importlib.util, resource, sys
from contextlib import nullcontext
import numpy as np, torch
spec = importlib.util.spec_from_file_location("scale", sys.argv[1])
scale = importlib.util.module_from_spec(spec)
sys.modules["scale"] = scale
spec.loader.exec_module(scale)
torch.set_num_threads(1)
def resident():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
SAMPLING = """
size = (24, 256, 256)
stage = scale.stage_of("refiner", size, 118, "cluster")
network = stage.build()["denoiser"]
request = scale.RefineRequest(image=np.zeros(size, np.float32), mask=np.zeros(size, np.uint8))
run = scale.RefineRun(request, torch.Generator(), stage.config, stage.spec, stage.signal_kept)
noisy, run._mask = torch.zeros(size), torch.zeros(size, dtype=torch.int32)
def work():
    with torch.no_grad():
        return run._predict(network, noisy, 0, 0)
"""
TRAINING = """
size = (16, 192, 192)
stage = scale.stage_of("image_sequence_generator", size, 118, "workstation")
work = scale.two_steps(stage, scale.training_batch(stage, size, 2), nullcontext)
"""
AFTER = """
counted = scale.counted(work, nullcontext()).peak
before = resident()
kept = work()
print(counted, resident() - before)
"""


@pytest.mark.parametrize(
    "work",
    [pytest.param(SAMPLING, id="sampling"), pytest.param(TRAINING, id="training", marks=pytest.mark.soak)],
)
def test_what_is_counted_is_what_is_taken(work: str):
    # What is freed goes back to the system at once, so that resident is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEFORE + work + AFTER, str(SCALE)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    counted, taken = map(int, done.stdout.split())
    assert counted > 200 * 2**20, "too little to be told from what a process takes anyway"
    assert taken == pytest.approx(counted, rel=0.25)
