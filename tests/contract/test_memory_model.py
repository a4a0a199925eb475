"""The memory that `medgen3d.recipes.cost` counts is the memory that a process takes, within a quarter.

The same work is done once without contents and once for real on a CPU, in float32, in a process of its own; there the
peak is what the process has had resident at most, less what it had before.
"""

import os
import subprocess
import sys

import pytest

BEFORE = """
from contextlib import nullcontext
import numpy as np, torch
from medgen3d.config.load import load_config
from medgen3d.recipes import cost, counting
from medgen3d_stages.refiner.sampler import RefineRequest, RefineRun
torch.set_num_threads(1)
def most_resident():  # of this program alone: getrusage begins with what the process had that started it
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])
"""
SAMPLING = """
size = (8, 256, 256)
stage = cost.make_empty_stage("refiner", load_config(presets=["cluster"]), size, 118)
network = stage.build()["denoiser"]
request = RefineRequest(image=np.zeros(size, np.float32), mask=np.zeros(size, np.uint8))
run = RefineRun(request, torch.Generator(), stage.config, stage.spec, stage.signal_kept)
noisy, mask = torch.zeros(size), torch.zeros(size, dtype=torch.int32)
def work():
    with torch.no_grad():
        return run.predict(network, noisy, mask, 0, 0)
"""
TRAINING = """
size = (16, 192, 192)
stage = cost.make_empty_stage("image_sequence_generator", load_config(presets=["workstation"]), size, 118)
work = cost.training_work(stage, cost.empty_batch(stage, size, 2), nullcontext)
"""
AFTER = """
counted = counting.counted(work, nullcontext()).peak
before = most_resident()
kept = work()
print(counted, most_resident() - before)
"""


@pytest.mark.parametrize(
    "work",
    [pytest.param(SAMPLING, id="sampling"), pytest.param(TRAINING, id="training", marks=pytest.mark.soak)],
)
def test_what_is_counted_is_what_is_taken(work: str):
    # What is freed goes back to the system at once, so that resident is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEFORE + work + AFTER],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    counted, taken = map(int, done.stdout.split())
    assert counted > 200 * 2**20, "too little to be told from what a process takes anyway"
    assert taken == pytest.approx(counted, rel=0.25)
