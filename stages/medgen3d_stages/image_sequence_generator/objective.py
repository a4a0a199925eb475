"""Training of the image sequence generator: windows, the walk along them, and the losses of the two turns."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medgen3d_stages.arrays import Batch, Example, Networks
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import SEQUENCE, History, Slice, places_in_plane
from medgen3d_stages.layers.label_code import NO_LABEL
from medgen3d_stages.monai_parts import PatchAdversarialLoss


def cut_window(example: Example, config: ImageSequenceGeneratorConfig, rng: np.random.Generator) -> Batch:
    """`window` slices to generate, after `history` slices that came before them; half of the windows run downwards.

    Of every slice the same part is cut: the whole plane, or a square of `crop` pixels, less where the plane is smaller.

    Returns (N = history + window, h x w what is cut):
        images: [N, h, w]. masks: int32 [N, h, w], NO_LABEL where there is no slice. present: [N]. position: [N].
        inside: [h, w], 1 inside the case. style_slices: [style_slices, h, w] from the middle half of the volume.
        places: [2, h, w], where the pixels lie in the plane.
    """
    depth = len(example.mask)
    upwards = bool(rng.random() < 0.5)
    start = int(rng.integers(0, max(depth - config.window, 0) + 1))
    length = config.history
    if rng.random() < config.short_history_probability:
        length = int(rng.integers(0, min(2, config.history)))
    order = np.arange(start - config.history, start + config.window)
    present = (order >= max(start - length, 0)) & (order < depth)
    order = np.clip(order, 0, depth - 1)
    if not upwards:
        order = depth - 1 - order
    rows, columns = (_part(side, config.crop, rng) for side in example.image.shape[1:])
    part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    top, bottom, left, right = example.box
    inside = np.zeros(example.image.shape[1:], dtype=np.float32)
    inside[top:bottom, left:right] = 1.0
    slab = (slice(order.min(), order.max() + 1), *part)
    images, masks = (volume[slab][order - order.min()] for volume in (example.image, example.mask))
    style = [example.image[slice(place, place + 1), *part] for place in style_places(depth, config.style_slices)]
    shown = present[:, None, None]
    return {
        "images": torch.from_numpy(np.where(shown, images, 0.0).astype(np.float32)),
        "masks": torch.from_numpy(np.where(shown, masks.astype(np.int32), NO_LABEL)),
        "present": torch.from_numpy(present.astype(np.float32)),
        "position": torch.from_numpy(((order + 0.5) / depth).astype(np.float32)),
        "inside": torch.from_numpy(inside[part]),
        "style_slices": torch.from_numpy(np.concatenate(style)),
        "places": places_in_plane((len(inside), inside.shape[1]), rows, columns),
    }


def _part(side: int, crop: int | None, rng: np.random.Generator) -> range:
    if crop is None:
        return range(side)
    taken = min(crop, side)
    first = int(rng.integers(side - taken + 1))
    return range(first, first + taken)


def style_places(depth: int, count: int) -> NDArray[np.intp]:
    """The slices that the style encoder sees: evenly spaced over the middle half of the volume."""
    return np.rint(np.linspace(0.25, 0.75, count) * (depth - 1)).astype(np.intp)


def generate_window(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    rng: torch.Generator,
    forced: bool,
) -> tuple[list[Slice], Tensor, Tensor]:
    """Walk along the window; `forced` shows the generator real slices as history, otherwise its own.

    Returns:
        The slices, and the style's mean and log-variance.
    """
    mean, log_variance = networks["style_encoder"](batch["style_slices"])
    style = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(mean.device)
    seen = [batch["images"][:, place] for place in range(config.history)]
    slices = []
    for place in range(config.history, config.history + config.window):
        first = place - config.history
        history = History(
            batch["masks"][:, first : place + 1],
            torch.stack(seen[first:place], dim=1),
            batch["present"][:, first:place],
        )
        shown = history, style, batch["position"][:, place], batch["places"]
        kept = not (config.recompute and torch.is_grad_enabled())
        made = networks["generator"](*shown) if kept else _recomputed(networks["generator"], *shown)
        slices.append(made)
        seen.append(batch["images"][:, place] if forced else made.image)
    return slices, mean, log_variance


def _recomputed(generator: torch.nn.Module, *shown: object) -> Slice:
    made: Slice = checkpoint(generator, *shown, use_reentrant=False)
    return made


def discriminator_loss(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    rng: torch.Generator,
    forced: bool,
) -> dict[str, Tensor]:
    """Least squares: real patches towards 1, generated ones towards 0."""
    with torch.no_grad():
        slices, *_ = generate_window(networks, batch, config, rng, forced)
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    terms = {}
    for name, real, fake in _judged(networks, slices, batch, config):
        on_real = adversarial(real[0], target_is_real=True, for_discriminator=True)
        on_fake = adversarial(fake[0], target_is_real=False, for_discriminator=True)
        terms[name] = 0.5 * (on_real + on_fake)
    return {"total": sum(terms.values(), torch.zeros(()))} | terms


def generator_loss(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    rng: torch.Generator,
    forced: bool,
) -> dict[str, Tensor]:
    """Adversarial, feature matching, L1, flow and KL, weighted as configured; and how widely styles are spread."""
    slices, mean, log_variance = generate_window(networks, batch, config, rng, forced)
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    terms = {
        "adversarial": torch.zeros((), device=mean.device),
        "feature_matching": torch.zeros((), device=mean.device),
    }
    for _, real, fake in _judged(networks, slices, batch, config):
        terms["adversarial"] = terms["adversarial"] + adversarial(fake[0], target_is_real=True, for_discriminator=False)
        terms["feature_matching"] = terms["feature_matching"] + feature_distance(real[1], fake[1])
    terms["l1"], terms["flow"] = reconstruction(slices, batch, config)
    terms["kl"] = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1).mean()
    weights = {
        "adversarial": config.adversarial_weight,
        "feature_matching": config.feature_matching_weight,
        "l1": config.l1_weight,
        "flow": config.flow_weight,
        "kl": config.kl_weight,
    }
    total = sum((weights[name] * term for name, term in terms.items()), torch.zeros((), device=mean.device))
    spread = (mean**2 + log_variance.exp()).mean().sqrt().detach()
    return {"total": total} | terms | {"style_spread": spread}


def reconstruction(slices: list[Slice], batch: Batch, config: ImageSequenceGeneratorConfig) -> tuple[Tensor, Tensor]:
    """Mean absolute error of the composed and of the warped slices, inside the case, where there is a slice."""
    real, present = batch["images"][:, config.history :], batch["present"]
    weight = batch["inside"][:, None] * present[:, config.history :, None, None]
    made = torch.stack([slice_.image for slice_ in slices], dim=1)
    warped = torch.stack([slice_.warped for slice_ in slices], dim=1)
    has_previous = weight * present[:, config.history - 1 : -1, None, None]
    l1 = ((made - real).abs() * weight).sum() / weight.sum().clamp(min=1)
    flow = ((warped - real).abs() * has_previous).sum() / has_previous.sum().clamp(min=1)
    return l1, flow


def feature_distance(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Mean absolute difference of discriminator features, averaged over layers and scales."""
    distances = [
        (on_fake.float() - on_real.float().detach()).abs().mean()
        for real_scale, fake_scale in zip(real, fake, strict=True)
        for on_real, on_fake in zip(real_scale, fake_scale, strict=True)
    ]
    return torch.stack(distances).mean()


def _judged(
    networks: Networks, slices: list[Slice], batch: Batch, config: ImageSequenceGeneratorConfig
) -> list[tuple[str, tuple[list[Tensor], list[list[Tensor]]], tuple[list[Tensor], list[list[Tensor]]]]]:
    """(name, verdict on the real, verdict on the generated) of both discriminators; padding is 0 for both."""
    shown = batch["inside"][:, None] * batch["present"][:, config.history :, None, None]
    real = batch["images"][:, config.history :] * shown
    fake = torch.stack([slice_.image for slice_ in slices], dim=1) * shown
    verdicts = []
    for name, length in (("slice", 1), ("sequence", SEQUENCE)):
        judge = networks[f"{name}_discriminator"]
        masks = _runs(batch["masks"][:, config.history :], length)
        verdicts.append((name, judge(_runs(real, length), masks), judge(_runs(fake, length), masks)))
    return verdicts


def _runs(items: Tensor, length: int) -> Tensor:
    """Every run of `length` neighbours of [B, N, ...] as an item of its own: [B * (N - length + 1), length, ...]."""
    starts = range(items.shape[1] - length + 1)
    return torch.cat([items[:, start : start + length] for start in starts])
