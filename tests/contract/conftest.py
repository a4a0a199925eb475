"""The stages, tiny, with synthetic volumes that are awkward on purpose; each trained once on one batch."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from medgen3d.config.training import StageTraining
from medgen3d.training.loop import train
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.catalogue import STAGE_NAMES, make_stage
from medgen3d_stages.contract import DataSpec, Stage
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.sampler import MaskRequest
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.sampler import RefineRequest
from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.sampler import SegmentRequest

DEVICE = torch.device(os.environ.get("MEDGEN3D_DEVICE", "cpu"))
"""Where the suite runs: `MEDGEN3D_DEVICE=cuda pytest tests/contract` asks it of a GPU."""
PLANE = (18, 22)  # no multiple of 8, nor of what any of the networks halves
BOXES = [(1, 16, 2, 21), (0, 18, 0, 22), (3, 14, 5, 18), (1, 16, 2, 21)]  # odd and even sides
DEPTHS = [9, 3, 6, 5]  # the second has fewer slices than the windows
TINY = {
    "mask_generator": MaskGeneratorConfig(
        window=4, overlap=1, channels=(16, 24), attention_levels=(False, True), diffusion_steps=100, sampling_steps=6
    ),
    "image_sequence_generator": ImageSequenceGeneratorConfig(
        style=4, channels=(8, 16), spade_channels=8, discriminator_channels=8, window=4, style_slices=3
    ),
    "refiner": RefinerConfig(
        channels=(8, 16),
        attention_levels=(False, True),
        spade_channels=8,
        crop=16,
        diffusion_steps=100,
        sampling_steps=4,
        slice_batch=7,
    ),
    "segmenter": SegmenterConfig(channels=8, num_res_blocks=(1, 1), patch=(8, 16, 20)),
}
LEARNING_RATE = {"mask_generator": 5e-3, "image_sequence_generator": 2e-3, "refiner": 5e-3, "segmenter": 5e-3}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32 on a GPU as well


@dataclass(frozen=True)
class Tiny:
    """A stage with its data and with what can be asked of it."""

    stage: Stage
    examples: list[Example]
    batch: Batch
    requests: list[Any]

    @property
    def batch_device(self) -> torch.device:
        return next(iter(self.batch.values())).device

    def generators(self, first_seed: int = 0) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(first_seed + number) for number in range(len(self.requests))]

    def loss(self, networks: dict[str, torch.nn.Module], turn: str, term: str, num_draws: int = 8) -> float:
        """Mean of a loss over fixed noise, so that it can be compared before and after training."""
        with torch.no_grad():
            draws = [
                self.stage.loss(turn, networks, self.batch, torch.Generator().manual_seed(seed), 0.0)[term]
                for seed in range(num_draws)
            ]
        return float(torch.stack(draws).mean())


def ellipsoid_example(depth: int, box: tuple[int, int, int, int], num_labels: int, seed: int) -> Example:
    """Nested ellipsoids, one per label, in a box; brighter inwards, with a little noise; reflected outside the box."""
    rng = np.random.default_rng(seed)
    top, bottom, left, right = box
    sides = (depth, bottom - top, right - left)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in sides), indexing="ij")
    radius = np.sqrt((z / 1.2) ** 2 + (y / rng.uniform(0.6, 0.9)) ** 2 + (x / rng.uniform(0.6, 0.9)) ** 2)
    inner = sum((radius < level).astype(int) for level in np.linspace(1, 0.4, num_labels - 1))
    values = (2 * inner / (num_labels - 1) - 1) * 0.8 + 0.05 * rng.standard_normal(sides)
    around = ((0, 0), (top, PLANE[0] - bottom), (left, PLANE[1] - right))
    image = np.pad(values.clip(-1, 1), around, mode="reflect").astype(np.float32)
    return Example(image=image, mask=np.pad(inner, around).astype(np.uint8), box=box)


def make_tiny(name: str, num_labels: int) -> Tiny:
    spec = DataSpec(num_labels=num_labels, plane=PLANE, spacing_mm=(2.0, 1.0, 1.0), max_depth=max(DEPTHS))
    stage = make_stage(name, TINY[name], spec)
    examples = [
        ellipsoid_example(depth, box, num_labels, seed)
        for seed, (depth, box) in enumerate(zip(DEPTHS, BOXES, strict=True))
    ]
    cut = [stage.cut(example, np.random.default_rng(seed)) for seed, example in enumerate(examples)]
    batch = {key: torch.stack([part[key] for part in cut]).to(DEVICE) for key in cut[0]}
    cropped = [example.cropped() for example in examples[:3]]
    requests = {
        "mask_generator": [MaskRequest(shape=mask.shape) for _, mask in cropped],
        "image_sequence_generator": [ImageRequest(mask=mask) for _, mask in cropped],
        "refiner": [RefineRequest(image=image, mask=mask) for image, mask in cropped],
        "segmenter": [SegmentRequest(image=image) for image, _ in cropped],
    }[name]
    return Tiny(stage, examples, batch, requests)


def steps_on_one_batch(tiny: Tiny, state: TrainingState, steps: int, precision: str = "fp32") -> list[dict[str, float]]:
    """Train on the same batch again and again; the losses of each step."""
    settings = StageTraining(steps=steps, precision=precision)
    seen: list[dict[str, float]] = []
    train(
        tiny.stage,
        state,
        [tiny.batch] * (steps - state.step),
        settings,
        seed=0,
        device=DEVICE,
        after_step=lambda _, losses: seen.append(losses) is None,
    )
    return seen


def fresh_state(tiny: Tiny, steps: int) -> TrainingState:
    settings = StageTraining(
        steps=steps, learning_rate=LEARNING_RATE[tiny.stage.name], betas=(0.5, 0.99), warmup_steps=5, ema_decay=0.9
    )
    return TrainingState(tiny.stage, settings, seed=0, device=DEVICE)


KINDS = [
    pytest.param((name, num_labels), id=f"{name}-{num_labels}-labels", marks=marks)
    for name in STAGE_NAMES
    for num_labels, marks in ((2, pytest.mark.soak), (4, ()))
]


@pytest.fixture(scope="session", params=KINDS)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return make_tiny(*request.param)


@dataclass(frozen=True)
class Fitted:
    """A stage that was trained on its one batch, and its loss before."""

    tiny: Tiny
    state: TrainingState
    loss_before: float
    turn: str
    term: str

    def sample(self, **changes: Any) -> list[np.ndarray]:
        arguments = {
            "networks": self.state.sampling_networks(),
            "inputs": self.tiny.requests,
            "generators": self.tiny.generators(),
        }
        return self.tiny.stage.sample(**(arguments | changes))


@pytest.fixture(scope="session")
def fitted(tiny: Tiny) -> Fitted:
    steps = 60
    turn = list(tiny.stage.turns)[-1]
    term = "l1" if turn == "generator" else "total"
    state = fresh_state(tiny, steps)
    before = tiny.loss(state.networks, turn, term)
    steps_on_one_batch(tiny, state, steps)
    return Fitted(tiny, state, before, turn, term)


@pytest.fixture
def train_briefly() -> Callable[[Tiny, str], tuple[TrainingState, list[dict[str, float]]]]:
    """Three steps from the start, in a precision: the state after them, and the losses."""

    def run(tiny: Tiny, precision: str) -> tuple[TrainingState, list[dict[str, float]]]:
        state = fresh_state(tiny, 3)
        return state, steps_on_one_batch(tiny, state, 3, precision)

    return run
