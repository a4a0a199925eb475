"""Training of the refiner: slices, and the loss on them."""

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.diffusion.process import add_noise, velocity
from medgen3d_stages.layers.label_code import NO_LABEL
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
    starts, sides = (0, top, left), (len(example.mask), bottom - top, right - left)
    view = int(rng.integers(len(VIEWS)))
    index = int(rng.integers(sides[view]))
    plane = [side for axis, side in enumerate(sides) if axis != view]
    height, width = (min(size, config.crop) for size in plane)
    row, column = (int(rng.integers(size - taken + 1)) for size, taken in zip(plane, (height, width), strict=True))
    box = [slice(row, row + height), slice(column, column + width)]
    box.insert(view, slice(index, index + 1))
    taken = tuple(slice(part.start + start, part.stop + start) for part, start in zip(box, starts, strict=True))
    image, mask = (array[taken].squeeze(axis=view) for array in (example.image, example.mask))
    rows, columns = reflected(height, config.crop), reflected(width, config.crop)
    square = np.ix_(rows.numpy(), columns.numpy())
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
    mask = batch["mask"].where(shown[:, None, None], NO_LABEL)
    noisy = add_noise(clean, noise, step, signal_kept)
    predicted = network(noisy, mask, batch["view"], step).float()
    original = (batch["rows"] == sides)[:, None, :, None] & (batch["columns"] == sides)[:, None, None, :]
    squared = (predicted - velocity(clean, noise, step, signal_kept)) ** 2
    return {"total": (squared * original).sum() / original.sum()}
