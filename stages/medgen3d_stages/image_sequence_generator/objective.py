"""Training of the image sequence generator: windows, the walk along them, and the losses of the two turns."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Networks
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import NO_SLICE, SEQUENCE, History, Slice, masks_one_hot
from medgen3d_stages.monai_parts import PatchAdversarialLoss


def cut_window(example: Example, config: ImageSequenceGeneratorConfig, rng: np.random.Generator) -> Batch:
    """`window` slices to generate, after `history` slices that came before them; half of the windows run downwards.

    Returns (N = history + window):
        images: [N, H, W]. masks: int32 [N, H, W], NO_SLICE where there is no slice. present: [N]. position: [N].
        inside: [H, W], 1 inside the case. style_slices: [style_slices, H, W] from the middle half of the volume.
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
    top, bottom, left, right = example.box
    inside = np.zeros(example.image.shape[1:], dtype=np.float32)
    inside[top:bottom, left:right] = 1.0
    shown = present[:, None, None]
    return {
        "images": torch.from_numpy(np.where(shown, example.image[order], 0.0).astype(np.float32)),
        "masks": torch.from_numpy(np.where(shown, example.mask[order].astype(np.int32), NO_SLICE)),
        "present": torch.from_numpy(present.astype(np.float32)),
        "position": torch.from_numpy(((order + 0.5) / depth).astype(np.float32)),
        "inside": torch.from_numpy(inside),
        "style_slices": torch.from_numpy(example.image[style_places(depth, config.style_slices)]),
    }


def style_places(depth: int, count: int) -> NDArray[np.intp]:
    """The slices that the style encoder sees: evenly spaced over the middle half of the volume."""
    return np.rint(np.linspace(0.25, 0.75, count) * (depth - 1)).astype(np.intp)


def generate_window(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    num_labels: int,
    rng: torch.Generator,
    forced: bool,
) -> tuple[list[Slice], Tensor, Tensor]:
    """Walk along the window; `forced` shows the generator real slices as history, otherwise its own.

    Returns:
        The slices, and the style's mean and log-variance.
    """
    mean, log_variance = networks["style_encoder"](batch["style_slices"])
    style = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(mean.device)
    hot = masks_one_hot(batch["masks"], num_labels)
    seen = [batch["images"][:, place] for place in range(config.history)]
    slices = []
    for place in range(config.history, config.history + config.window):
        first = place - config.history
        history = History(
            hot[:, first : place + 1], torch.stack(seen[first:place], dim=1), batch["present"][:, first:place]
        )
        made = networks["generator"](history, style, batch["position"][:, place])
        slices.append(made)
        seen.append(batch["images"][:, place] if forced else made.image)
    return slices, mean, log_variance


def discriminator_loss(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    num_labels: int,
    rng: torch.Generator,
    forced: bool,
) -> dict[str, Tensor]:
    """Least squares: real patches towards 1, generated ones towards 0."""
    with torch.no_grad():
        slices, *_ = generate_window(networks, batch, config, num_labels, rng, forced)
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    terms = {}
    for name, real, fake in _judged(networks, slices, batch, config, num_labels):
        on_real = adversarial(real[0], target_is_real=True, for_discriminator=True)
        on_fake = adversarial(fake[0], target_is_real=False, for_discriminator=True)
        terms[name] = 0.5 * (on_real + on_fake)
    return {"total": sum(terms.values(), torch.zeros(()))} | terms


def generator_loss(
    networks: Networks,
    batch: Batch,
    config: ImageSequenceGeneratorConfig,
    num_labels: int,
    rng: torch.Generator,
    forced: bool,
) -> dict[str, Tensor]:
    """Adversarial, feature matching, L1, flow and KL, weighted as configured."""
    slices, mean, log_variance = generate_window(networks, batch, config, num_labels, rng, forced)
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    terms = {
        "adversarial": torch.zeros((), device=mean.device),
        "feature_matching": torch.zeros((), device=mean.device),
    }
    for _, real, fake in _judged(networks, slices, batch, config, num_labels):
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
    return {"total": total} | terms


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
    networks: Networks, slices: list[Slice], batch: Batch, config: ImageSequenceGeneratorConfig, num_labels: int
) -> list[tuple[str, tuple[list[Tensor], list[list[Tensor]]], tuple[list[Tensor], list[list[Tensor]]]]]:
    """(name, verdict on the real, verdict on the generated) of both discriminators; padding is 0 for both."""
    shown = batch["inside"][:, None] * batch["present"][:, config.history :, None, None]
    real = batch["images"][:, config.history :] * shown
    fake = torch.stack([slice_.image for slice_ in slices], dim=1) * shown
    hot = masks_one_hot(batch["masks"], num_labels)[:, config.history :]
    verdicts = []
    for name, length in (("slice", 1), ("sequence", SEQUENCE)):
        judge = networks[f"{name}_discriminator"]
        masks = _runs(hot, length)
        verdicts.append((name, judge(_runs(real, length), masks), judge(_runs(fake, length), masks)))
    return verdicts


def _runs(items: Tensor, length: int) -> Tensor:
    """Every run of `length` neighbours of [B, N, ...] as an item of its own: [B * (N - length + 1), length, ...]."""
    starts = range(items.shape[1] - length + 1)
    return torch.cat([items[:, start : start + length] for start in starts])
