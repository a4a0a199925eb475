"""Previews: pictures of what a stage draws while it is trained, so that a person can follow the training."""

import torch

from medgen3d.artifacts.examples import read_example
from medgen3d.artifacts.pictures import montage
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.core.seeds import stream_seed
from medgen3d.training.state import TrainingState
from medgen3d_stages.contract import Stage


def preview_png(stage: Stage, state: TrainingState, prepared: PreparedSet, seed: int) -> bytes:
    """A picture of one sample of the EMA networks, for the first case of the validation split (or of training)."""
    info = prepared.info
    example = read_example(prepared, (info.case_ids("validation") or info.case_ids("train"))[0])
    generator = torch.Generator().manual_seed(stream_seed(seed, stage.name, "preview"))
    image, mask = stage.preview(state.sampling_networks(), example, generator)
    title = f"{'PHANTOM ' if info.phantom else ''}{info.name}, {stage.name}, step {state.step}"
    return montage([(title, image, mask)], dict(enumerate(info.label_table.names)), info.spacing_mm)
