import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medgen3d_stages.arrays import Example
from medgen3d_stages.diffusion.process import add_noise, velocity
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.layers.label_code import NO_LABEL
from medgen3d_stages.refiner.network import SliceDenoiser
from medgen3d_stages.refiner.objective import cut_slice, denoising_loss

KEPT = cosine_signal_kept(100)


def coordinates() -> Example:
    """A case of 5 x 9 x 11 in a plane of 12 x 14, whose image is z + y / 100 + x / 10000 and 77 in the padding."""
    z, y, x = np.meshgrid(np.arange(5), np.arange(9), np.arange(11), indexing="ij")
    around = ((0, 0), (1, 2), (2, 1))
    image = np.pad(z + y / 100 + x / 10000, around, constant_values=77).astype(np.float32)
    return Example(image=image, mask=np.pad(y % 3, around, constant_values=2).astype(np.uint8), box=(1, 10, 2, 13))


def test_the_three_views_are_cut_equally_often_and_show_what_their_names_say(config):
    counts = [0, 0, 0]
    for seed in range(300):
        batch = cut_slice(coordinates(), config, np.random.default_rng(seed))
        image = batch["image"][0].double()
        view = int(batch["view"])
        counts[view] += 1
        z, y, x = image.add(0.001).floor(), (image * 100).add(0.1).floor() % 100, (image * 10000).round() % 100
        fixed, down, right = ((z, y, x), (y, z, x), (x, z, y))[view]
        assert (fixed == fixed[0, 0]).all()  # axial slices have one z, coronal ones one y, sagittal ones one x
        assert (down == down[:, :1]).all()
        assert (right == right[:1]).all()
        assert (down.diff(dim=0).abs() <= 1).all()
        assert (right.diff(dim=1).abs() == 1).all()
        assert image.max() < 5  # nothing from the padding
        torch.testing.assert_close(batch["mask"].double(), y % 3)
    assert counts == pytest.approx([100, 100, 100], abs=25)  # three standard errors


def test_slices_smaller_than_the_crop_are_reflected_and_say_so(config):
    for seed in range(50):
        batch = cut_slice(coordinates(), dataclasses.replace(config, crop=16), np.random.default_rng(seed))
        sizes = [(9, 11), (5, 11), (5, 9)][int(batch["view"])]
        for indices, size in zip((batch["rows"], batch["columns"]), sizes, strict=True):
            there_and_back = [*range(size), *range(size - 2, 0, -1)]
            assert indices.tolist() == (2 * there_and_back)[:16]
        square = batch["image"][0]
        torch.testing.assert_close(square, square[batch["rows"]][:, batch["columns"]])


class Listener(nn.Module):
    """A network that keeps what it is shown and answers with fixed velocities."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.seen: tuple[Tensor, ...] = ()

    def forward(self, *seen: Tensor) -> Tensor:
        self.seen = seen
        return self.answer


def batch_of(config, count: int) -> dict[str, Tensor]:
    cut = [cut_slice(coordinates(), config, np.random.default_rng(seed)) for seed in range(count)]
    return {key: torch.stack([part[key] for part in cut]) for key in cut[0]}


def test_reflected_pixels_carry_reflected_noise_and_are_not_learnt(config):
    config = dataclasses.replace(config, crop=16)
    batch, network = batch_of(config, 6), Listener(torch.zeros(6, 1, 16, 16))
    denoising_loss(network, batch, config, KEPT, torch.Generator().manual_seed(0))["total"].backward()
    for item, (noisy, rows, columns) in enumerate(zip(network.seen[0], batch["rows"], batch["columns"], strict=True)):
        torch.testing.assert_close(noisy[0], noisy[0][rows][:, columns])
        height, width = int(rows.max()) + 1, int(columns.max()) + 1
        learnt = network.answer.grad[item, 0] != 0
        assert learnt[:height, :width].all()
        assert learnt.sum() == height * width


def test_the_true_velocity_has_no_loss(config):
    # What the true velocity is follows from what the network saw: noisy = sqrt(ab) clean + sqrt(1 - ab) noise.
    batch = batch_of(config, 4)
    listener = Listener(torch.zeros(4, 1, 8, 8))
    denoising_loss(listener, batch, config, KEPT, torch.Generator().manual_seed(0))
    noisy, step = listener.seen[0].double(), listener.seen[3]
    kept = KEPT.double()[step][:, None, None, None]
    clean = batch["image"].double()
    noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
    torch.testing.assert_close(add_noise(clean, noise, step, KEPT.double()), noisy)
    teller = Listener(velocity(clean, noise, step, KEPT.double()).float())
    loss = denoising_loss(teller, batch, config, KEPT, torch.Generator().manual_seed(0))["total"]
    assert float(loss.detach()) < 1e-5
    off_by_one = Listener(teller.answer.detach() + 1)
    loss = denoising_loss(off_by_one, batch, config, KEPT, torch.Generator().manual_seed(0))["total"]
    assert float(loss.detach()) == pytest.approx(1, abs=0.01)


def test_masks_are_taken_away_as_often_as_configured(config):
    config = dataclasses.replace(config, mask_dropout=0.25)
    batch, network = batch_of(config, 400), Listener(torch.zeros(400, 1, 8, 8))
    denoising_loss(network, batch, config, KEPT, torch.Generator().manual_seed(0))
    masks = network.seen[1]
    without = (masks == NO_LABEL).all(dim=2).all(dim=1)
    assert int(without.sum()) == pytest.approx(100, abs=26)  # three standard errors
    assert torch.equal(masks[~without], batch["mask"][~without])


def test_steps_are_drawn_from_the_whole_schedule(config):
    batch, network = batch_of(config, 400), Listener(torch.zeros(400, 1, 8, 8))
    denoising_loss(network, batch, config, KEPT, torch.Generator().manual_seed(0))
    steps = network.seen[3]
    assert (int(steps.min()), int(steps.max())) == pytest.approx((0, 99), abs=3)


def test_a_fresh_network_predicts_no_velocity(config):
    # Its loss is then the velocity's own size: about 1 for images of about unit size.
    torch.manual_seed(0)
    network = SliceDenoiser(config, num_labels=3)
    with torch.no_grad():
        assert not network(
            torch.randn(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int32), torch.tensor([0]), torch.tensor([5])
        ).any()
