"""What every test shares: an isolated local Ray cluster and the way to the real data."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Ray and MLflow read these when they are first imported, here and in every process that a test starts.
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",  # otherwise Ray writes a token into the home folder
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


@pytest.fixture
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
