"""What every test shares: an isolated local Ray cluster and the way to the real data."""

import math
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Ray and MLflow read these when they are first imported, here and in every process that a test starts.
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",  # otherwise Ray writes a token into the home folder
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # as on a local cluster
    "RAY_TMPDIR": tempfile.mkdtemp(prefix="mg3d-", dir="/tmp"),  # short: Ray's socket paths have a limit of 107 bytes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # ray.train.report waits for one such interval
    "RAY_USAGE_STATS_ENABLED": "0",
}
for address in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS"):
    os.environ.pop(address, None)  # a test must never reach the tester's own server or cluster

# No deadline: a shared machine is sometimes slow. `make soak` asks for the second profile.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("soak", max_examples=5000, deadline=None)
settings.load_profile("quick")


# `--dist loadgroup` would do, but pytest-xdist 3.8 loses its groups with pytest 9.2, whose node ids cannot be changed.
class ByService(LoadFileScheduling):
    """A file's tests run in one process (`--dist loadfile`), and so do all files that share a service on Ray."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(super()._split_scope(nodeid))
        return str(file.parent if file.parent.name == "on_ray" else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByService | None:
    """None, the scheduler that pytest-xdist would take, for `--dist load`."""
    return ByService(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real local cluster for all tests that need Ray; its eight CPUs are logical slots."""
    import ray

    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes, which are never part of the repository."""
    folder = os.environ.get("MEDGEN3D_REAL_DATA")
    if not folder:
        pytest.skip(
            "MEDGEN3D_REAL_DATA is unset: it names the folder that holds hippocampus/, abdomen_ct/ and dicom_series/"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def write_toy_bundle() -> Callable[..., Path]:
    """write_toy_bundle(root, stage, seed, parent_run, **fields of the dataset): a bundle with two small tensors."""
    import torch

    from medgen3d.artifacts.bundle import BundleInfo, write_bundle
    from medgen3d.artifacts.provenance import Provenance

    toy = {
        "name": "toy",
        "modality": "MR",
        "phantom": True,
        "labels": {0: "background", 3: "node"},
        "spacing_mm": (2.0, 1.0, 1.0),
        "plane": (16, 8),
        "axis_codes": "RAS",
        "image_dtype": "float32",
        "inverse": {"low": 0.0, "high": 100.0},
        "shapes": [(5, 14, 8, 2), (6, 16, 8, 1)],
        "digest": "d" * 64,
    }

    def write(
        root: Path, stage: str = "mask_generator", seed: int = 0, parent_run: str | None = None, **changes: object
    ) -> Path:
        dataset = toy | changes
        spec = {"num_labels": len(dataset["labels"]), "plane": dataset["plane"], "max_depth": 6}
        info = BundleInfo(
            stage=stage, stage_config={}, spec=spec | {"spacing_mm": dataset["spacing_mm"]}, dataset=dataset
        )
        origin = {"dataset_name": dataset["name"], "dataset_digest": dataset["digest"], "parent_run": parent_run}
        provenance = Provenance(config_hash="c" * 64, seed=seed, **origin)
        numbers = torch.Generator().manual_seed(seed)
        weights = {name: torch.randn(3, 2, generator=numbers) for name in ("net/weight", "net/scale")}
        write_bundle(root, info, weights, provenance, b"\x89PNG\r\n\x1a\n")
        return root

    return write


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of the three stages with small random networks, by stage: their samples are noise of the right form."""
    import torch

    from medgen3d.artifacts.bundle import BundleInfo, write_bundle
    from medgen3d.artifacts.bundle_weights import named_weights
    from medgen3d.artifacts.provenance import Provenance
    from medgen3d_stages.catalogue import config_type, make_stage
    from medgen3d_stages.contract import DataSpec

    dataset = {
        "name": "knee",
        "modality": "MR",
        "phantom": True,
        "labels": {0: "background", 7: "bone", 300: "cartilage"},
        "spacing_mm": (3.0, 0.5, 0.75),
        "plane": (16, 24),
        "axis_codes": "LPS",
        "image_dtype": "int16",
        "inverse": {"low": -100.0, "high": 300.0},
        "shapes": [(5, 14, 22, 3), (6, 16, 24, 1), (9, 13, 20, 2)],
        "digest": "d" * 64,
    }
    options = {
        "mask_generator": {"window": 4, "overlap": 1, "channels": (8, 16), "attention_levels": (False, True)},
        "image_sequence_generator": {"style": 4, "channels": (8, 16), "spade_channels": 8},
        "refiner": {"channels": (8, 16), "attention_levels": (False, True), "spade_channels": 8, "crop": 16},
    }
    few_steps = {"mask_generator": {"sampling_steps": 3}, "refiner": {"sampling_steps": 3}}
    spec = {"num_labels": 3, "plane": dataset["plane"], "spacing_mm": dataset["spacing_mm"], "max_depth": 9}
    root = tmp_path_factory.mktemp("tiny_pipeline")
    for stage_name, chosen in options.items():
        chosen |= few_steps.get(stage_name, {})
        stage = make_stage(stage_name, config_type(stage_name)(**chosen), DataSpec(**spec))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            networks = {name: network for name, network in stage.build().items() if name in stage.sampled}
            for network in networks.values():
                for parameter in network.parameters():  # fresh last layers are zero, and every sample with them
                    parameter.detach().add_(0.1 * torch.randn(parameter.shape))
        info = BundleInfo(stage=stage_name, stage_config=chosen, spec=spec, dataset=dataset)
        provenance = Provenance(dataset_name="knee", dataset_digest="d" * 64, config_hash="c" * 64, seed=1)
        write_bundle(root / stage_name, info, named_weights(networks), provenance, b"\x89PNG\r\n\x1a\n")
    return {stage_name: root / stage_name for stage_name in options}


@pytest.fixture(scope="session")
def tiny_as_pipeline(tiny_pipeline: dict[str, Path]) -> Callable[[str], Any]:
    """tiny_as_pipeline(name): the same networks as a resolved pipeline of version 3."""
    from medgen3d.artifacts.pipeline import Pipeline

    return lambda name: Pipeline.of_bundles(name, 3, tiny_pipeline)


_FIELDS = [(40, "h", 8), (70, "h", 2), (76, "f", 8), (108, "f", 3), (123, "B", 1), (252, "h", 2), (256, "f", 18)]
"""(byte, type, count) of dim, data type and bits, pixdim, offset and scaling, units, codes, quaternion and sform."""
_NUMBERS = [0, 1, -1, 2, 3.5, 32767, -32768, 1e5, 1e38, 1e-38, math.nan, math.inf, -math.inf]


@pytest.fixture(scope="session")
def fuzzed_header() -> Callable[[bytes, int], bytes]:
    """fuzzed_header(NIfTI-1 header, seed): the same with one to four fields or bytes that say something else."""

    def fuzz(header: bytes, seed: int) -> bytes:
        rng, changed = random.Random(seed), bytearray(header)
        for _ in range(rng.randint(1, 4)):
            place, kind, count = rng.choice(_FIELDS)
            place += rng.randrange(count) * struct.calcsize(kind)
            number = rng.choice(_NUMBERS)
            if rng.random() < 0.5:
                changed[rng.randrange(348)] = rng.randrange(256)
            elif kind == "f":
                struct.pack_into("<f", changed, place, number)
            elif math.isfinite(number):
                low, high = (0, 255) if kind == "B" else (-(2**15), 2**15 - 1)
                struct.pack_into(f"<{kind}", changed, place, int(min(max(number, low), high)))
        return bytes(changed)

    return fuzz
