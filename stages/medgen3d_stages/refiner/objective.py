"""Training of the refiner: slices, and the loss on them."""

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, one_hot
from medgen3d_stages.diffusion.process import add_noise, velocity
from medgen3d_stages.layers.padding import reflected
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.network import VIEWS, SliceDenoiser


def cut_slice(example: Example, config: RefinerConfig, rng: np.random.Generator) -> Batch:
    """A square of a slice at a random place in a random view, from inside the case.

    Returns:
        image: [1, crop, crop]. mask: int32 [crop, crop]. view: [].
        rows, columns: [crop], where each pixel comes from: beyond the slice's end they reflect.
    """
    top, bottom, left, right = example.box
    inside = (slice(None), slice(top, bottom), slice(left, right))
    view = int(rng.integers(len(VIEWS)))
    index = int(rng.integers(example.mask[inside].shape[view]))
    image, mask = (np.take(array[inside], index, axis=view) for array in (example.image, example.mask))
    height, width = (min(size, config.crop) for size in image.shape)
    row, column = (
        int(rng.integers(size - taken + 1)) for size, taken in zip(image.shape, (height, width), strict=True)
    )
    rows, columns = reflected(height, config.crop), reflected(width, config.crop)
    square = np.ix_(row + rows.numpy(), column + columns.numpy())
    return {
        "image": torch.from_numpy(image[square].astype(np.float32))[None],
        "mask": torch.from_numpy(mask[square].astype(np.int32)),
        "view": torch.tensor(view),
        "rows": rows,
        "columns": columns,
    }


def denoising_loss(
    network: SliceDenoiser, batch: Batch, config: RefinerConfig, signal_kept: Tensor, rng: torch.Generator
) -> dict[str, Tensor]:
    """Mean squared error of the predicted velocity over the pixels that are no reflection."""
    clean = batch["image"]
    count, device, sides = len(clean), clean.device, torch.arange(config.crop, device=clean.device)
    step = torch.randint(0, len(signal_kept), (count,), generator=rng).to(device)
    noise = torch.randn(clean.shape, generator=rng).to(device)
    # Reflected pixels carry reflected noise, as they do in sampling.
    noise = noise[
        torch.arange(count, device=device)[:, None, None], 0, batch["rows"][:, :, None], batch["columns"][:, None]
    ][:, None]
    shown = (torch.rand(count, generator=rng) >= config.mask_dropout).to(device)
    mask_one_hot = one_hot(batch["mask"], network.unet.label_nc) * shown[:, None, None, None]
    noisy = add_noise(clean, noise, step, signal_kept)
    predicted = network(noisy, mask_one_hot, batch["view"], step).float()
    original = (batch["rows"] == sides)[:, None, :, None] & (batch["columns"] == sides)[:, None, None, :]
    squared = (predicted - velocity(clean, noise, step, signal_kept)) ** 2
    return {"total": (squared * original).sum() / original.sum()}
