"""Volumes at the size in which hospitals make them, through ingest, training and synthesis: it ends, within bounds.

The networks are small or learn next to nothing: on a CPU what counts is that nothing grows with the volume that should
not. What each process takes at most is printed.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import CHAIN

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

GIB = 2**30
QUARTER_WIDTH = {
    "mask_generator.channels": "[32,64,96,128]",
    "image_sequence_generator.channels": "[16,32,64,128,128]",
    "image_sequence_generator.spade_channels": "16",
    "image_sequence_generator.discriminator_channels": "16",
    "refiner.channels": "[16,32,64,128]",
    "refiner.spade_channels": "16",
}
TINY = {
    # 16 at first: on CPUs with AMX torch 2.13 corrupts the heap where a convolution in bfloat16 makes 8 features of
    # more than 2048 (its gradient, in oneDNN), and a window of 16 slices has 4177.
    "mask_generator.channels": "[16,8,8,16]",
    "mask_generator.sampling_steps": "2",
    "mask_generator.num_res_blocks": "1",
    "image_sequence_generator.channels": "[8,8,8,8,16]",
    "image_sequence_generator.spade_channels": "8",
    "image_sequence_generator.discriminator_channels": "8",
    "refiner.channels": "[8,8,8,16]",
    "refiner.spade_channels": "8",
    "refiner.sampling_steps": "3",
}
HERE = {
    "cluster.num_workers": "1",
    "cluster.use_gpu": "false",
    "cluster.cpus_per_worker": "1",
    "cluster.threads": "2",
    "cluster.wait_for_resources": "false",
    "synthesis.use_gpu": "false",
    "synthesis.cpus_per_actor": "0.5",
    "synthesis.num_actors.mask_generator": "1",
    "synthesis.threads": "2",
    "synthesis.gates": "false",
}


def training(steps: int, batch_size: int) -> dict[str, str]:
    every = {"steps": steps, "checkpoint_every": steps, "preview_every": steps, "log_every": 1, "loader_workers": 0}
    chosen = {f"training.{stage}.{key}": str(value) for stage in CHAIN for key, value in every.items()}
    return chosen | {f"training.{stage}.batch_size": str(batch_size) for stage in CHAIN}


class Runner:
    """Runs `medgen3d` with the preset `cluster` and watches what its processes take."""

    def __init__(self, root: Path, options: dict[str, str], say: Callable[[str], object]) -> None:
        self.say = say
        self.settings = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        self.settings += ["--set", f"storage.root={root / 'store'}", "--preset", "cluster"]

    def __call__(self, *words: object, with_settings: bool = True) -> dict[str, float]:
        """Peak memory [GiB] by kind of process; the process's title without its arguments."""
        command = [sys.executable, "-m", "medgen3d", *map(str, words), *(self.settings if with_settings else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with process, watched(process.pid) as peaks:
            said, _ = process.communicate()
        assert process.returncode == 0, said
        large = {kind: f"{peak:.2f} GiB" for kind, peak in peaks.items() if peak > 0.2}
        self.say(f"{' '.join(map(str, words[:2]))}: at most {large}")
        return peaks


@contextmanager
def watched(pid: int) -> Iterator[dict[str, float]]:
    """Fills the dictionary, until the block ends, with the most that each kind of process has had for itself."""
    peaks: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            with suppress(psutil.Error):
                for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                    with suppress(psutil.Error):
                        # One that has just ended has no words left.
                        kind = (process.cmdline() or ["ended"])[0] if process.pid != pid else "driver"
                        own = process.memory_full_info().uss / GIB
                        peaks[kind] = max(peaks.get(kind, 0.0), own)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


@pytest.fixture
def say(request) -> Callable[[str], object]:
    """Says a line on the terminal, whatever pytest captures."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n{text}\n")

    return line


def most(peaks: dict[str, float], title: str) -> float:
    return max(peak for kind, peak in peaks.items() if title in kind)


def test_abdominal_mris_at_their_own_size_are_learnt_and_drawn(real_data, tmp_path, say):
    run = Runner(tmp_path, HERE | QUARTER_WIDTH | training(steps=20, batch_size=2), say)
    run("ingest", real_data / "chaos_t2", "--out", tmp_path / "prepared", "--name", "chaos")
    info = PreparedSet(tmp_path / "prepared").info
    assert len(info.cases) == 15
    assert info.plane == (256, 256)
    trained = run("train", "all", "--data", tmp_path / "prepared")
    assert most(trained, "RayTrainWorker") < 8
    run("pipeline", "create", "chaos", "--set", f"storage.root={tmp_path / 'store'}", with_settings=False)
    drawn = run("synthesize", "--pipeline", "chaos@candidate", "--count", 1, "--seed", 1, "--out", tmp_path / "pairs")
    assert most(drawn, "MapWorker") < 4
    (case_id,) = SyntheticSet(tmp_path / "pairs").case_ids
    image, mask = (nib.load(tmp_path / "pairs" / part / f"{case_id}.nii.gz") for part in ("images", "labels"))
    assert image.shape == mask.shape
    assert image.shape[::-1] in info.shapes("train")
    assert np.ptp(np.asarray(image.dataobj)) > 0


@pytest.fixture
def thorax(tmp_path) -> Path:
    """Three made-up CTs of 200 x 512 x 512 voxels with 118 labels, in Decathlon layout."""
    root = tmp_path / "source"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    z, y, x = np.ogrid[-1:1:200j, -1:1:512j, -1:1:512j]
    names = [f"ct_{number}.nii.gz" for number in range(3)]
    for number, name in enumerate(names):
        radius = np.sqrt(z**2 / 1.4 + (y / (0.7 + 0.1 * number)) ** 2 + x**2)
        shell = np.clip((1 - radius) * 9, 0, 8.99).astype(np.uint8)
        sector = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * 13).astype(np.uint8)
        mask = np.where(shell > 0, (shell - 1) * 13 + sector + 1, 0).clip(0, 117).astype(np.uint8)
        image = (10 * mask.astype(np.int16) - 900 * (mask == 0)).astype(np.int16)
        image += np.random.default_rng(number).integers(-20, 20, image.shape, np.int16)
        affine = np.diag([0.8, 0.8, 1.5, 1.0])
        nib.save(nib.Nifti1Image(image.T, affine), root / "imagesTr" / name)
        nib.save(nib.Nifti1Image(mask.T, affine), root / "labelsTr" / name)
    description = {
        "name": "Thorax",
        "modality": {"0": "CT"},
        "labels": {str(label): f"organ {label}" if label else "background" for label in range(118)},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_a_whole_thorax_with_118_labels_is_learnt_and_drawn_within_a_host(thorax, tmp_path, say):
    run = Runner(tmp_path, HERE | TINY | training(steps=1, batch_size=1), say)
    prepared = run("ingest", thorax, "--out", tmp_path / "prepared", "--name", "thorax")
    assert max(prepared.values()) < 4
    assert len(PreparedSet(tmp_path / "prepared").info.label_table) == 118
    trained = run("train", "all", "--data", tmp_path / "prepared")
    assert most(trained, "RayTrainWorker") < 12
    run("pipeline", "create", "thorax", "--set", f"storage.root={tmp_path / 'store'}", with_settings=False)
    drawn = run("synthesize", "--pipeline", "thorax@candidate", "--count", 1, "--seed", 1, "--out", tmp_path / "pairs")
    assert max(drawn.values()) < 12
    (case_id,) = SyntheticSet(tmp_path / "pairs").case_ids
    assert nib.load(tmp_path / "pairs" / "labels" / f"{case_id}.nii.gz").shape == (512, 512, 200)
