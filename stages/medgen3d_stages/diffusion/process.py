"""Adding noise, and going between the three things a denoiser can predict."""

from torch import Tensor


def _kept_at(step: Tensor, signal_kept: Tensor, like: Tensor) -> Tensor:
    return signal_kept.to(like.device)[step].view(-1, *[1] * (like.ndim - 1))


def add_noise(clean: Tensor, noise: Tensor, step: Tensor, signal_kept: Tensor) -> Tensor:
    """Diffuse each clean item straight to its step.

    Args:
        clean: [B, ...], scaled to [-1, 1].
        noise: Same shape, standard normal; the caller draws it, so that a test can fix it.
        step: [B], 0 (nearly clean) to steps - 1 (nearly noise).
        signal_kept: [steps], alpha-bar.

    Raises:
        IndexError: A step lies outside the schedule.

    Source: Ho et al. 2020, eq. 4 (arXiv:2006.11239).
    """
    kept = _kept_at(step, signal_kept, clean)
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def velocity(clean: Tensor, noise: Tensor, step: Tensor, signal_kept: Tensor) -> Tensor:
    """What a v-predicting network learns, same shape as `clean`. Source: Salimans and Ho 2022 (arXiv:2202.00512)."""
    kept = _kept_at(step, signal_kept, clean)
    return kept.sqrt() * noise - (1 - kept).sqrt() * clean


def clean_from_velocity(noisy: Tensor, predicted: Tensor, step: Tensor, signal_kept: Tensor) -> Tensor:
    """The clean item that a predicted velocity implies. Inverse of `velocity` for a true prediction."""
    kept = _kept_at(step, signal_kept, noisy)
    return kept.sqrt() * noisy - (1 - kept).sqrt() * predicted
