from pathlib import Path

import numpy as np
import pytest
import torch

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    PreparedCase,
    PreparedSet,
    write_info,
    write_prepared_case,
)
from medgen3d.core.volume import Box, affine_from_spacing
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.stage import ImageSequenceGenerator
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.stage import Refiner

PLANE, DEPTHS = (8, 16), {"case-0": 4, "case-1": 6, "case-2": 5, "case-3": 4, "case-4": 7, "held-out": 4}
SPEC = DataSpec(num_labels=2, plane=PLANE, spacing_mm=(1.0, 1.0, 1.0), max_depth=7)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Five training cases and one of the test split; the image of case n is n / 10 everywhere."""
    root: Path = tmp_path_factory.mktemp("prepared")
    cases, entries = [], []
    for number, (case_id, depth) in enumerate(DEPTHS.items()):
        split = "test" if case_id == "held-out" else "train"
        shape = (depth, *PLANE)
        mask = np.zeros(shape, np.uint8)
        mask[:, 2:5, 3:9] = 1
        cases.append(
            PreparedCase(
                case_id=case_id,
                split=split,
                image=np.full(shape, number / 10, np.float32),
                mask=mask,
                box=Box(top=0, bottom=8, left=0, right=16),
                affine=affine_from_spacing((1.0, 1.0, 1.0)),
                intensity=Intensity(low=0, high=1),
            )
        )
        entries.append(
            CaseEntry(case_id=case_id, patient=case_id, split=split, shape=shape, sources_sha256={"image": "0" * 64})
        )
    for number, case in enumerate(cases):
        write_prepared_case(root, number, case)
    write_info(
        root,
        DatasetInfo(
            name="grey",
            modality="MR",
            labels={0: "background", 1: "block"},
            spacing_mm=(1.0, 1.0, 1.0),
            plane=PLANE,
            intensity={"kind": "percentiles", "low": 0.5, "high": 99.5},
            inverse=Intensity(low=0, high=1),
            seed=0,
            patients_known=False,
            cases=entries,
        ),
    )
    return PreparedSet(root)


@pytest.fixture
def refiner() -> Refiner:
    """One turn."""
    config = RefinerConfig(
        channels=(8,), attention_levels=(False,), spade_channels=4, crop=8, diffusion_steps=30, sampling_steps=3
    )
    return Refiner(config, SPEC)


@pytest.fixture
def gan() -> ImageSequenceGenerator:
    """Two turns."""
    config = ImageSequenceGeneratorConfig(
        style=4,
        channels=(8, 8),
        spade_channels=4,
        discriminator_channels=4,
        num_scales=1,
        num_layers=1,
        window=3,
        style_slices=2,
    )
    return ImageSequenceGenerator(config, SPEC)
