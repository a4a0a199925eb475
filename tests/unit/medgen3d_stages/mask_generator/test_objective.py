import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medgen3d_stages.arrays import Example
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.layers.label_code import LabelHead
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser
from medgen3d_stages.mask_generator.objective import choose_known, cut_window, denoising_loss

SPEC = DataSpec(num_labels=4, plane=(6, 8), spacing_mm=(1.0, 1.0, 1.0), max_depth=20)
CONFIG = MaskGeneratorConfig(
    window=4, overlap=1, channels=(8, 16), attention_levels=(False, False), cross_entropy_weight=0.5
)


def numbered_slices(depth: int) -> Example:
    """Every voxel of a slice holds the slice's number (no label: cutting does not care)."""
    mask = np.broadcast_to(np.arange(depth)[:, None, None], (depth, 6, 8)).astype(np.uint8)
    return Example(image=np.zeros(mask.shape, np.float32), mask=mask, box=(1, 5, 2, 7))


def with_modes(unconditional: float, forward: float, backward: float, scattered: float = 0.0) -> MaskGeneratorConfig:
    return MaskGeneratorConfig(
        window=4, overlap=1, mode_probabilities=(unconditional, forward, backward), scattered_probability=scattered
    )


def test_windows_lie_anywhere_in_the_volume_and_know_their_positions():
    rng, starts = np.random.default_rng(0), set()
    for _ in range(200):
        batch = cut_window(numbered_slices(10), CONFIG, SPEC, rng)
        slices = batch["mask"][:, 0, 0]
        assert slices.diff().tolist() == [1, 1, 1]
        torch.testing.assert_close(batch["position"], (slices + 0.5) / 10)
        starts.add(int(slices[0]))
    assert starts == set(range(7))
    assert float(batch["depth"]) == 0.5


def test_only_what_lies_in_the_box_is_valid():
    valid = cut_window(numbered_slices(10), CONFIG, SPEC, np.random.default_rng(0))["valid"]
    assert valid[:, 1:5, 2:7].all()
    assert int(valid.sum()) == 4 * 4 * 5


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_volume_with_fewer_slices_than_the_window_is_followed_by_slices_that_are_not_valid(depth):
    for seed in range(50):
        batch = cut_window(numbered_slices(depth), CONFIG, SPEC, np.random.default_rng(seed))
        assert batch["mask"][:, 0, 0].tolist() == [*range(depth), *[0] * (4 - depth)]
        assert batch["valid"].any(dim=2).any(dim=1).tolist() == [True] * depth + [False] * (4 - depth)
        assert not batch["known"][depth:].any()
        assert not batch["known"][:depth].all()  # something is left to learn


def test_the_three_modes_occur_as_often_as_configured():
    rng, counts = np.random.default_rng(0), {"none": 0, "first": 0, "last": 0}
    for _ in range(3000):
        known = choose_known(4, with_modes(0.2, 0.5, 0.3), rng)
        assert known.any() == bool(known[0]) ^ bool(known[-1])
        counts["none" if not known.any() else "first" if known[0] else "last"] += 1
    # Three standard errors of 3000 draws: at most 82.
    assert counts == pytest.approx({"none": 600, "first": 1500, "last": 900}, abs=82)


@pytest.mark.parametrize(
    ("config", "inside", "possible"),
    [
        (with_modes(1, 0, 0), 4, {"0000"}),
        (with_modes(0, 1, 0), 4, {"1000", "1100", "1110"}),
        (with_modes(0, 0, 1), 4, {"0001", "0011", "0111"}),
        (with_modes(0, 0, 1), 3, {"0010", "0110"}),
        (with_modes(0, 1, 0, scattered=1), 3, {"1000", "0100", "0010", "1100", "1010", "0110"}),
        (with_modes(0, 1, 0), 1, {"0000"}),
    ],
)
def test_exactly_these_slices_can_be_known(config, inside, possible):
    rng = np.random.default_rng(0)
    found = {"".join(str(int(known)) for known in choose_known(inside, config, rng)) for _ in range(300)}
    assert found == possible


def batch_of(known: list[bool], num_labels: int, inside: int = 4) -> dict[str, Tensor]:
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, num_labels, (1, 4, 6, 8), dtype=np.int32))
    valid = torch.zeros(1, 4, 6, 8, dtype=torch.bool)
    valid[:, :inside, 1:5, 2:7] = True
    return {
        "mask": mask * valid,
        "valid": valid,
        "known": torch.tensor([known]),
        "position": torch.rand(1, 4),
        "depth": torch.ones(1),
    }


@pytest.mark.parametrize(("num_labels", "mse"), [(2, 1.0), (4, 0.75)])
def test_a_network_that_knows_nothing_has_the_loss_of_guessing(num_labels, mse):
    # A fresh network's logits are 0: every label has probability 1 / K, decoded to 2 / K - 1. For K = 4 that is -0.5,
    # off by 1.5 for the true label and by 0.5 for the three others: (2.25 + 3 * 0.25) / 4. Cross-entropy is ln K.
    network, batch = MaskDenoiser(CONFIG, num_labels), batch_of([False] * 4, num_labels)
    with torch.no_grad():
        losses = denoising_loss(network, batch, CONFIG, cosine_signal_kept(9), torch.Generator().manual_seed(0))
    assert float(losses["mse"]) == pytest.approx(mse)
    assert float(losses["cross_entropy"]) == pytest.approx(math.log(num_labels))
    assert float(losses["total"]) == pytest.approx(mse + 0.5 * math.log(num_labels))


class Listener(nn.Module):
    """A network that keeps what it is shown and answers with fixed logits."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = LabelHead(3)
        self.logits = nn.Parameter(torch.zeros(1, 3, 4, 6, 8))
        self.seen: tuple[Tensor, ...] = ()

    def forward(self, *seen: Tensor) -> Tensor:
        self.seen = seen
        return self.logits


def listen(known: list[bool], inside: int = 4) -> tuple[Listener, dict[str, Tensor]]:
    network, batch = Listener(), batch_of(known, 3, inside)
    losses = denoising_loss(network, batch, CONFIG, cosine_signal_kept(1000), torch.Generator().manual_seed(0))
    losses["total"].backward()
    return network, batch


def test_known_slices_are_shown_clean_and_the_others_noisy():
    network, batch = listen([True, False, True, False])
    noisy, known, indicator, valid, position, depth, _ = network.seen
    clean = 2 * torch.nn.functional.one_hot(batch["mask"].long(), 3).movedim(-1, 1).float() - 1
    assert torch.equal(noisy[:, :, [0, 2]], clean[:, :, [0, 2]])
    inside = batch["valid"][:, None].expand_as(clean)[:, :, [1, 3]]
    assert (noisy[:, :, [1, 3]][inside] != clean[:, :, [1, 3]][inside]).all()
    assert torch.equal(noisy[:, :, [1, 3]][~inside], clean[:, :, [1, 3]][~inside])
    assert indicator[0, 0].any(dim=2).any(dim=1).tolist() == [True, False, True, False]
    assert torch.equal(known, clean * indicator)
    assert torch.equal(valid[:, 0].bool(), batch["valid"])
    assert torch.equal(position, batch["position"])
    assert torch.equal(depth, batch["depth"])


def test_only_unknown_voxels_of_the_case_are_learnt():
    network, batch = listen([True, False, False, False], inside=3)
    learnt = network.logits.grad.abs().amax(dim=1) > 0
    expected = batch["valid"].clone()
    expected[:, 0] = False
    assert torch.equal(learnt, expected)


def test_the_loss_is_a_mean_over_what_is_learnt():
    # The same guess costs the same, however many slices are known.
    few, many = listen([False] * 4)[0], listen([True, True, True, False])[0]
    assert float(few.logits.grad.abs().sum()) == pytest.approx(float(many.logits.grad.abs().sum()), rel=0.1)
