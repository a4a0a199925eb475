"""Membership inference: tells a stage's training cases from others. Where that succeeds, the stage remembers them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.report_parts import Metric
from medgen3d.evaluation.real_floor import bootstrap_interval

if TYPE_CHECKING:  # torch is loaded when a stage is
    from medgen3d_stages.arrays import Example
    from medgen3d_stages.chain import TrainedStage

NUM_LOSSES = 16
NUM_DRAWS = 2


class MembershipAuc(NamedTuple):
    """The success of scores at telling training from held-out cases.

    auc: Probability that a training case scores higher than a held-out one, ties counted as one half.
    low, high: 95 % bootstrap interval.
    """

    auc: float
    low: float
    high: float


def membership_scores(trained: "TrainedStage", example: "Example", seed: int) -> float:
    """The score of a case: the higher, the likelier the stage was trained on it.

    Where a bundle holds all networks that the losses need, minus the mean training loss of NUM_LOSSES examples that
    are cut from the case. Else (a GAN, whose critics are left behind) minus the mean absolute difference between the
    real image and the most similar one of NUM_DRAWS samples for its mask.

    Args:
        trained: The stage and its sampled networks.
        example: The case, as training sees it.
        seed: The same for all cases, so that they are compared at the same noise.

    Source: Matsumoto et al. 2023 (arXiv:2302.03262) for the loss, Chen et al. 2020 (arXiv:1909.03935) for the samples.
    """
    needed = {name for names in trained.stage.turns.values() for name in names}
    if needed <= set(trained.stage.sampled):
        return -_mean_loss(trained, example, seed)
    return -_distance_of_samples(trained, example, seed)


def membership_auc(train: Sequence[float], held_out: Sequence[float], rng: np.random.Generator) -> MembershipAuc:
    """The area under the ROC curve of the scores: 0.5 when nothing can be told, 1 when all can.

    Args:
        train: A score per training case, at least one.
        held_out: A score per case that the stage was not trained on, at least one.
        rng: Draws the resamples.
    """
    low, high = bootstrap_interval([train, held_out], _auc, rng)
    return MembershipAuc(_auc(np.asarray(train), np.asarray(held_out)), low, high)


def membership_metric(
    stage: str, train: Sequence[float], held_out: Sequence[float], rng: np.random.Generator
) -> Metric:
    """`novelty.membership.<stage>`, for the section of novelty; see `membership_auc`."""
    found = membership_auc(train, held_out, rng)
    return Metric(
        name=f"novelty.membership.{stage}",
        title=f"Membership inference, {stage.replace('_', ' ')}: AUC",
        value=found.auc,
        interval=(found.low, found.high),
        num=len(train),
        num_of=f"training cases, {len(held_out)} held out",
        note="0.5: training cases cannot be told from others.",
    )


def _auc(train: NDArray[np.floating], held_out: NDArray[np.floating]) -> float:
    higher = train[:, None] > held_out
    equal = train[:, None] == held_out
    return float(higher.mean() + 0.5 * equal.mean())


def _mean_loss(trained: "TrainedStage", example: "Example", seed: int) -> float:
    """Over all turns; the networks are in the state of use, without dropout."""
    import torch

    stage, networks = trained.stage, trained.networks
    rng = np.random.default_rng(seed)
    cuts = [stage.cut(example, rng) for _ in range(NUM_LOSSES)]
    device = next(next(iter(networks.values())).parameters()).device
    batch = {name: torch.stack([cut[name] for cut in cuts]).to(device) for name in cuts[0]}
    for network in networks.values():
        network.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return sum(float(stage.loss(turn, networks, batch, generator, 1.0)["total"]) for turn in stage.turns)


def _distance_of_samples(trained: "TrainedStage", example: "Example", seed: int) -> float:
    import torch

    real, _ = example.cropped()
    for network in trained.networks.values():
        network.eval()
    generators = [torch.Generator().manual_seed(seed + draw) for draw in range(NUM_DRAWS)]
    samples = [trained.stage.preview(trained.networks, example, generator)[0] for generator in generators]
    return min(float(np.abs(sample - real).mean()) for sample in samples)
