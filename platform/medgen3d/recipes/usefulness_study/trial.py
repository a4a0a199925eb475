"""One trial: a segmenter trained on real cases, synthetic pairs or both, and tested on real cases. Plain Python."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from medgen3d.artifacts.examples import open_example, read_example
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.usefulness_results import Arm, Trial
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.seeds import stream_seed
from medgen3d.evaluation.agreement import compare_masks
from medgen3d.evaluation.sets import LabelledSet, open_sets
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import train
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.chain import TrainedStage
from medgen3d_stages.contract import Stage
from medgen3d_stages.segmenter.sampler import SegmentRequest

STAGE = "segmenter"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """The specification of a trial. Small and picklable; whoever runs it reads the data.

    case_ids: Real training cases; they count where the arm has real ones.
    data: The prepared set with them and the test cases.
    pairs: The synthetic set, whose first `num_pairs` cases count where the arm has synthetic ones.
    seed: Number of the repetition.
    """

    arm: Arm
    case_ids: tuple[str, ...]
    data: Path
    pairs: Path
    num_pairs: int
    seed: int
    config: ExperimentConfig


class MixedExamples(Dataset[Batch]):
    """Examples of two sets: number n is the first one's with probability `first_share`, decided by (seed, n) alone."""

    def __init__(self, first: Dataset[Batch], second: Dataset[Batch], first_share: float, seed: int) -> None:
        self.first, self.second, self.first_share, self.seed = first, second, first_share, seed

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng(stream_seed(self.seed, "source", number))
        return self.first[number] if rng.random() < self.first_share else self.second[number]


def run_trial(spec: TrialSpec, device: torch.device, after_step: Callable[[], None]) -> Trial:
    """Train a segmenter and test it.

    Args:
        spec: What is trained on what.
        device: Where the network lives.
        after_step: Called after every step of the training.

    Raises:
        DataError: A case cannot be read, or the synthetic cases do not fit the real ones.
        TrainingDivergedError: A loss or a gradient became NaN or infinite.
    """
    begun = time.monotonic()
    prepared, settings = PreparedSet(spec.data), spec.config.training.segmenter
    stage = stage_for(STAGE, spec.config, prepared)
    seed = stream_seed(spec.config.seed, "trial", spec.seed)  # the same in all arms: they differ in nothing else
    state = TrainingState(stage, settings, seed, device)

    def go_on(_state: TrainingState, _losses: dict[str, float]) -> bool:
        after_step()
        return True

    sampler = StepSampler(0, settings.steps, settings.batch_size, rank=0, world_size=1)
    loader = batches(examples_of(spec, prepared, stage, seed), sampler, settings.loader_workers)
    train(stage, state, loader, settings, seed=seed, device=device, after_step=go_on)
    dice = dice_on_test_cases(TrainedStage(stage, state.sampling_networks()), prepared)
    return Trial(
        arm=spec.arm,
        num_cases=len(spec.case_ids),
        seed=spec.seed,
        dice=dice,
        seconds=round(time.monotonic() - begun, 1),
    )


def examples_of(spec: TrialSpec, prepared: PreparedSet, stage: Stage, seed: int) -> Dataset[Batch]:
    """The training examples of the trial's arm.

    Raises:
        DataError: The synthetic set does not fit the prepared set.
    """
    real = ExampleSet(spec.case_ids, functools.partial(open_example, prepared), stage, seed)
    if spec.arm == "real":
        return real
    labelled = open_sets(spec.data, spec.pairs).synthetic
    pairs = ExampleSet(labelled.case_ids[: spec.num_pairs], functools.partial(_read_pair, labelled), stage, seed)
    if spec.arm == "synthetic":
        return pairs
    return MixedExamples(real, pairs, spec.config.usefulness.real_share, seed)


def dice_on_test_cases(segmenter: TrainedStage, prepared: PreparedSet) -> dict[str, float]:
    """Mean Dice by label title over the test cases, without those where neither mask nor segmenter has the label."""
    info = prepared.info
    rows = []
    for case_id in info.case_ids("test"):
        image, mask = read_example(prepared, case_id).cropped()
        (found,) = segmenter.sample([SegmentRequest(image=image)], seeds=[0])
        rows.append(compare_masks(found, mask, len(info.label_table), info.spacing_mm).dice)
    return mean_dice(rows, info.label_table.titles[1:])


def mean_dice(rows: Sequence[NDArray[np.float64]], titles: Sequence[str]) -> dict[str, float]:
    """{label title: mean over the cases where there is a Dice}; labels without any are left out."""
    columns = np.stack(rows).T
    return {
        title: float(np.nanmean(column))
        for title, column in zip(titles, columns, strict=True)
        if not np.isnan(column).all()
    }


def _read_pair(labelled: LabelledSet, case_id: str) -> Example:
    image, mask = labelled.read(case_id)
    _, height, width = mask.shape
    return Example(image=image, mask=mask, box=(0, height, 0, width))
