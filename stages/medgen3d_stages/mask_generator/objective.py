"""Training of the mask generator: windows, and the loss on them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, one_hot
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser


def cut_window(example: Example, config: MaskGeneratorConfig, spec: DataSpec, rng: np.random.Generator) -> Batch:
    """A window of `config.window` slices at a random place, with its known slices chosen.

    Volumes with fewer slices than the window are followed by background slices that are not valid.

    Returns:
        mask: [m, H, W] int32. valid: bool [m, H, W]. known: bool [m]. position: [m]. depth: [] relative to max_depth.
    """
    depth, height, width = example.mask.shape
    start = int(rng.integers(0, max(depth - config.window, 0) + 1))
    inside = min(config.window, depth)
    mask = np.zeros((config.window, height, width), dtype=np.int32)
    mask[:inside] = example.mask[start : start + inside]
    top, bottom, left, right = example.box
    valid = np.zeros(mask.shape, dtype=bool)
    valid[:inside, top:bottom, left:right] = True
    position = (np.arange(start, start + config.window) + 0.5) / depth
    return {
        "mask": torch.from_numpy(mask),
        "valid": torch.from_numpy(valid),
        "known": torch.from_numpy(choose_known(inside, config, rng)),
        "position": torch.from_numpy(position.astype(np.float32)),
        "depth": torch.tensor(depth / spec.max_depth, dtype=torch.float32),
    }


def choose_known(inside: int, config: MaskGeneratorConfig, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which slices of a window with `inside` slices of the volume are given: none, the first n, the last n, or any."""
    known = np.zeros(config.window, dtype=bool)
    mode = int(rng.choice(3, p=config.mode_probabilities))
    if mode == 0 or inside < 2:
        return known
    count = int(rng.integers(1, inside))
    if rng.random() < config.scattered_probability:
        known[rng.choice(inside, size=count, replace=False)] = True
    elif mode == 1:
        known[:count] = True
    else:
        known[inside - count : inside] = True
    return known


def denoising_loss(
    network: MaskDenoiser, batch: Batch, config: MaskGeneratorConfig, signal_kept: Tensor, rng: torch.Generator
) -> dict[str, Tensor]:
    """MSE of the decoded labels plus weighted cross-entropy, over the voxels that are unknown and inside the case."""
    mask, valid = batch["mask"], batch["valid"][:, None].float()
    clean = 2 * one_hot(mask, network.num_labels) - 1
    indicator = batch["known"][:, None, :, None, None].float() * valid
    step = torch.randint(0, len(signal_kept), (len(mask),), generator=rng).to(mask.device)
    noise = torch.randn(clean.shape, generator=rng).to(mask.device)
    unknown = valid * (1 - indicator)
    noisy = unknown * add_noise(clean, noise, step, signal_kept) + (1 - unknown) * clean
    logits = network(noisy, indicator * clean, indicator, valid, batch["position"], batch["depth"], step).float()
    decoded = 2 * logits.softmax(dim=1) - 1
    weight = unknown[:, 0]
    total_weight = weight.sum().clamp(min=1.0)
    mse = (((decoded - clean) ** 2).mean(dim=1) * weight).sum() / total_weight
    cross_entropy = (F.cross_entropy(logits, mask.long(), reduction="none") * weight).sum() / total_weight
    return {"total": mse + config.cross_entropy_weight * cross_entropy, "mse": mse, "cross_entropy": cross_entropy}
