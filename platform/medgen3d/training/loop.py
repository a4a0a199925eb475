"""The training loop, the same for every stage. It knows neither Ray nor MLflow; both are handed in."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from medgen3d.config.training import StageTraining
from medgen3d.core.errors import Medgen3dError
from medgen3d.core.seeds import stream_seed
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Networks
from medgen3d_stages.contract import Stage
from medgen3d_stages.precision import uses_bf16

Losses = dict[str, float]


class TrainingDivergedError(Medgen3dError):
    """args: (stage, step, what became so, value)."""

    def __str__(self) -> str:
        stage, step, what, value = self.args
        return (
            f"{stage}: the {what} became {value} at step {step}, expected a finite number. "
            f"Start another run with a smaller training.{stage}.learning_rate."
        )


class Turn(nn.Module):
    """One turn of a stage as a module whose forward pass is the loss, so that DDP wraps whatever the stage computes.

    Only the networks that the turn trains are its submodules: they are what DDP synchronises.
    """

    def __init__(self, stage: Stage, name: str, networks: Networks) -> None:
        super().__init__()
        self.stage, self.turn_name, self.networks = stage, name, networks
        self.trained = nn.ModuleDict({network: networks[network] for network in stage.turns[name]})

    def forward(self, batch: Batch, rng: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        return self.stage.loss(self.turn_name, self.networks, batch, rng, progress)

    def select(self) -> None:
        """Let gradients reach the networks of this turn and no others."""
        for name, network in self.networks.items():
            network.train().requires_grad_(name in self.trained)


def train(
    stage: Stage,
    state: TrainingState,
    batches: Iterable[Batch],
    settings: StageTraining,
    *,
    seed: int,
    rank: int = 0,
    device: torch.device,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    after_step: Callable[[TrainingState, Losses], bool],
) -> None:
    """Train from `state.step` until the batches end, or until `after_step` returns False.

    Args:
        stage: What is trained.
        state: Continued in place.
        batches: One batch per remaining step.
        settings: Optimisation settings.
        seed: The run's seed; each (step, rank) has a stream of its own.
        rank: This worker's number among those that train together.
        device: Where the networks live.
        wrap: Makes a turn's module synchronise its gradients with the other workers.
        after_step: Called with the state and the step's losses, for logging and checkpoints; False stops the training.

    Raises:
        TrainingDivergedError: A loss or a gradient is no longer finite; the weights still are.
    """
    turns = {name: Turn(stage, name, state.networks) for name in stage.turns}
    modules = {name: wrap(turn) for name, turn in turns.items()}
    bf16 = uses_bf16(settings.precision, device)
    for step, batch in enumerate(batches, start=state.step + 1):
        on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        rng = torch.Generator().manual_seed(stream_seed(seed, stage.name, "step", step, rank))
        losses: Losses = {}
        for name, turn in turns.items():
            turn.select()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                terms = modules[name](on_device, rng, step / settings.steps)
            losses |= _descend(terms, name, step, stage, state, settings)
        state.step = step
        state.update_ema()
        if not after_step(state, losses):
            return


def _descend(
    terms: dict[str, torch.Tensor], turn: str, step: int, stage: Stage, state: TrainingState, settings: StageTraining
) -> Losses:
    """One optimizer step on the turn's total loss; returns every term as a number, named turn/term."""
    total = float(terms["total"].detach())
    if not math.isfinite(total):
        raise TrainingDivergedError(stage.name, step, f"loss of the {turn}", total)
    optimizer = state.optimizers[turn]
    optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, settings.clip_norm))
    if not math.isfinite(norm):
        raise TrainingDivergedError(stage.name, step, f"gradient of the {turn}", norm)
    optimizer.step()
    state.schedules[turn].step()
    return {f"{turn}/{name}": float(term.detach()) for name, term in terms.items()} | {f"{turn}/gradient_norm": norm}
