"""A prepared set of bright blocks on noise that a small segmenter learns at once, and synthetic pairs of the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    PreparedCase,
    PreparedSet,
    Split,
    write_info,
    write_prepared_case,
)
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case
from medgen3d.artifacts.synthetic_set import write_part as write_rows
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.load import load_config
from medgen3d.core.volume import Box, Volume, affine_from_spacing

SHAPE, SPACING_MM = (8, 16, 16), (2.0, 1.0, 1.0)
LABELS = {0: "background", 3: "bright", 7: "dark"}
SPLITS: dict[str, Split] = {f"train_{number}": "train" for number in range(6)} | {
    "held_1": "validation",
    "held_2": "test",
    "held_3": "test",
}


def pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image [-1, 1] and mask of contiguous ids: a bright block and a dark one on grey, somewhere in the volume."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SHAPE, np.uint8)
    top, left = rng.integers(1, 4, 2)
    mask[2:6, top : top + 5, left : left + 4] = 1
    mask[2:6, top + 6 : top + 11, left + 5 : left + 10] = 2
    image = np.choose(mask, [0.0, 0.8, -0.8]) + rng.normal(0, 0.05, SHAPE)
    return np.clip(image, -1, 1).astype(np.float32), mask


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("prepared")
    cases = [
        PreparedCase(
            case_id=case_id,
            split=split,
            image=pair(number)[0],
            mask=pair(number)[1],
            box=Box(top=0, bottom=16, left=0, right=16),
            affine=affine_from_spacing(SPACING_MM),
            intensity=Intensity(low=0, high=1000 + number),
        )
        for number, (case_id, split) in enumerate(SPLITS.items())
    ]
    for number, case in enumerate(cases):
        write_prepared_case(root, number, case)
    entries = [
        CaseEntry(case_id=one.case_id, patient=one.case_id, split=one.split, shape=SHAPE, sources_sha256={})
        for one in cases
    ]
    info = DatasetInfo(
        name="blocks",
        modality="MR",
        labels=LABELS,
        spacing_mm=SPACING_MM,
        plane=SHAPE[1:],
        intensity={"kind": "percentiles", "low": 0.5, "high": 99.5},
        inverse=Intensity(low=0, high=1000),
        seed=0,
        patients_known=False,
        cases=entries,
    )
    write_info(root, info)
    return PreparedSet(root)


@pytest.fixture(scope="session")
def write_pairs() -> Callable[..., Path]:
    """write_pairs(root, digest, count, weights, labels): a synthetic set whose generator was trained on `digest`."""

    def write(root: Path, digest: str, count: int, weights: str = "w" * 64, labels: dict[int, str] = LABELS) -> Path:
        info = SyntheticSetInfo(
            dataset_name="blocks",
            dataset_digest=digest,
            modality="MR",
            phantom=False,
            labels=labels,
            spacing_mm=SPACING_MM,
            axis_codes="RAS",
            image_dtype="int16",
            pipeline_name="blocks",
            pipeline_version=1,
            seed=0,
            config_hash="c" * 64,
            weights_sha256={"mask_generator": weights},
            batch=1,
            threads=1,
            device="cpu",
        )
        open_for_writing(root, info)
        affine = affine_from_spacing(SPACING_MM)
        rows = []
        for number in range(count):
            image, mask = pair(1000 + number)
            volume = Volume(voxels=Intensity(low=0, high=1000).from_unit(image), affine=affine)
            labels = Volume(voxels=info.label_table.to_original(mask), affine=affine)
            rows.append(write_case(root, info, case_id=f"syn_{number:05d}", number=number, image=volume, mask=labels))
        write_rows(root, info, 0, rows)
        merge_parts(root)
        return root

    return write


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return load_config(
        presets=["smoke"], overrides=["segmenter.patch=[8, 16, 16]", f"storage.root={tmp_path / 'store'}"]
    )
