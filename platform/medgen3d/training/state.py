"""The state of a training run, everything that a checkpoint must hold; it saves and restores itself."""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from medgen3d.config.training import StageTraining
from medgen3d.core.errors import ArtifactError
from medgen3d.core.seeds import stream_seed
from medgen3d_stages.arrays import Networks
from medgen3d_stages.contract import Stage

SCHEMA_VERSION = 1
Tensors = tuple[Tensor, ...] | list[Tensor]
_FILE = "state.pt"


class TrainingState:
    """Networks, their EMA copies, one optimizer and learning-rate schedule per turn, and the number of steps taken."""

    def __init__(self, stage: Stage, settings: StageTraining, seed: int, device: torch.device) -> None:
        torch.manual_seed(stream_seed(seed, stage.name, "weights"))
        self.stage_name, self.step = stage.name, 0
        self.networks: Networks = {name: network.to(device) for name, network in stage.build().items()}
        self.ema = {
            name: AveragedModel(self.networks[name], multi_avg_fn=_warmed_up_average(settings.ema_decay))
            for name in stage.sampled
        }
        self.optimizers = {
            turn: torch.optim.AdamW(
                [parameter for name in names for parameter in self.networks[name].parameters()],
                lr=settings.learning_rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
            for turn, names in stage.turns.items()
        }
        self.schedules = {
            turn: LambdaLR(optimizer, lambda step: learning_rate_share(step, settings.warmup_steps, settings.steps))
            for turn, optimizer in self.optimizers.items()
        }

    def update_ema(self) -> None:
        for name, average in self.ema.items():
            average.update_parameters(self.networks[name])

    def sampling_networks(self) -> Networks:
        """The EMA networks, ready to sample."""
        return {name: average.module.eval() for name, average in self.ema.items()}

    def bundle_weights(self) -> dict[str, Tensor]:
        """EMA weights as "network/parameter" -> float32 tensor on the CPU."""
        return {
            f"{name}/{key}": tensor.detach().cpu().contiguous()
            for name, network in self.sampling_networks().items()
            for key, tensor in network.state_dict().items()
        }

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`; whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / (_FILE + ".unfinished")
        content = {name: _state_of(part) for name, part in self._parts().items()}
        torch.save(
            {"schema_version": SCHEMA_VERSION, "stage": self.stage_name, "step": self.step} | content, unfinished
        )
        unfinished.replace(folder / _FILE)

    def restore(self, folder: Path) -> None:
        """Take over a checkpoint, in place.

        Raises:
            ArtifactError: The checkpoint is missing, damaged, or of another stage or configuration.
        """
        path = folder / _FILE
        remedy = "Resume with the configuration that the run was started with, or start a new run."
        content = _read(path)
        found = (content.get("schema_version"), content.get("stage"))
        if found != (SCHEMA_VERSION, self.stage_name):
            raise ArtifactError(str(path), f"version and stage {found}", f"{(SCHEMA_VERSION, self.stage_name)}", remedy)
        try:
            for name, part in self._parts().items():
                for key, item in part.items():
                    item.load_state_dict(content[name][key])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ArtifactError(
                str(path), str(error).split("\n")[0], "a checkpoint of these networks", remedy
            ) from error
        self.step = content["step"]

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {"networks": self.networks, "ema": self.ema, "optimizers": self.optimizers, "schedules": self.schedules}


def learning_rate_share(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the full learning rate at a step: linear warm-up, then half a cosine down to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            sound = archive.testzip() is None  # torch.load compares no checksums
        content = torch.load(path, weights_only=True, map_location="cpu") if sound else None
    except Exception as error:  # what damaged bytes raise depends on where they lie
        found = error.strerror if isinstance(error, OSError) and error.strerror else "a damaged file"
        raise ArtifactError(str(path), found, "a training checkpoint", "Resume from an earlier one.") from error
    if not isinstance(content, dict):
        raise ArtifactError(str(path), "a damaged file", "a training checkpoint", "Resume from an earlier one.")
    return content


def _state_of(part: dict[str, Any]) -> dict[str, Any]:
    return {key: item.state_dict() for key, item in part.items()}


def _warmed_up_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An EMA that follows quickly at first, so that short trainings do not average in their random start."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        count = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + count) / (10 + count)))

    return update
