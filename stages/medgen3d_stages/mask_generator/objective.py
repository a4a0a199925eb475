"""Training of the mask generator: windows, and the loss on them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise
from medgen3d_stages.layers.label_code import LabelHead
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
    """MSE of the decoded signal plus weighted cross-entropy, over the voxels that are unknown and inside the case."""
    mask, valid = batch["mask"], batch["valid"][:, None].float()
    clean = network.labels.encode(mask)
    indicator = batch["known"][:, None, :, None, None].float() * valid
    step = torch.randint(0, len(signal_kept), (len(mask),), generator=rng).to(mask.device)
    noise = torch.randn(clean.shape, generator=rng).to(mask.device)
    unknown = valid * (1 - indicator)
    noisy = unknown * add_noise(clean, noise, step, signal_kept) + (1 - unknown) * clean
    features = network(noisy, indicator * clean, indicator, valid, batch["position"], batch["depth"], step)
    weight, slab = unknown[:, 0], network.labels.slab(features)
    sums = [
        # Logits are made once more on the way back: those of a whole window would be the largest tensor of all.
        checkpoint(_errors, network.labels, *parts, use_reentrant=False)
        for parts in zip(*(whole.split(slab, dim=-3) for whole in (features, clean, mask, weight)), strict=True)
    ]
    mse, cross_entropy = torch.stack([torch.stack(pair) for pair in sums]).sum(dim=0) / weight.sum().clamp(min=1.0)
    return {"total": mse + config.cross_entropy_weight * cross_entropy, "mse": mse, "cross_entropy": cross_entropy}


def _errors(labels: LabelHead, features: Tensor, clean: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums over a slab: the squared error of the signal, mean over its planes, and the cross-entropy."""
    logits = labels.logits(features)
    squared = ((labels.expected(logits.softmax(dim=1)) - clean) ** 2).mean(dim=1)
    return (squared * weight).sum(), (F.cross_entropy(logits, mask.long(), reduction="none") * weight).sum()
