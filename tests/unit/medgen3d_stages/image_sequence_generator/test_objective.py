import dataclasses

import numpy as np
import pytest
import torch

from medgen3d_stages.arrays import Example
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import Slice, places_in_plane
from medgen3d_stages.image_sequence_generator.objective import (
    cut_window,
    feature_distance,
    generate_window,
    reconstruction,
    style_places,
)
from medgen3d_stages.layers.label_code import NO_LABEL

CONFIG = ImageSequenceGeneratorConfig(history=2, window=3, style_slices=3, short_history_probability=0.0)


def numbered_slices(depth: int) -> Example:
    """Every voxel of slice z holds the label z; the image is z / 10 there."""
    mask = np.broadcast_to(np.arange(depth)[:, None, None], (depth, 6, 7)).astype(np.uint8)
    return Example(image=(mask / 10).astype(np.float32), mask=mask, box=(1, 6, 0, 5))


def cut(depth: int, seed: int, config: ImageSequenceGeneratorConfig = CONFIG) -> dict[str, torch.Tensor]:
    return cut_window(numbered_slices(depth), config, np.random.default_rng(seed))


def test_a_window_follows_neighbours_upwards_or_downwards_equally_often():
    ways = {1: 0, -1: 0}
    for seed in range(400):
        batch = cut(9, seed)
        slices = batch["masks"][batch["present"] == 1][:, 0, 0]
        assert len(slices) >= 3
        (way,) = set(slices.diff().tolist())
        ways[way] += 1
        assert batch["present"][2:].all()
        torch.testing.assert_close(batch["position"][batch["present"] == 1], (slices + 0.5) / 9)
        torch.testing.assert_close(batch["images"][batch["present"] == 1][:, 0, 0], slices / 10)
    assert ways[1] == pytest.approx(200, abs=30)  # three standard errors


def test_a_window_at_the_start_of_its_way_has_less_history_and_elsewhere_all_of_it():
    seen = set()
    for seed in range(200):
        batch = cut(6, seed)
        first, last = int(batch["masks"][2, 0, 0]), int(batch["masks"][4, 0, 0])
        number = first if last > first else 5 - first  # how many slices lie before the window, along its way
        assert batch["present"][:2].tolist() == [float(number >= 2), float(number >= 1)]
        seen.add(number)
    assert seen == {0, 1, 2, 3}


def test_what_is_not_there_has_no_label_and_no_grey_value():
    for seed in range(50):
        batch = cut(2, seed)
        assert batch["present"].tolist() == [0, 0, 1, 1, 0]
        absent = batch["present"] == 0
        assert (batch["masks"][absent] == NO_LABEL).all()
        assert (batch["images"][absent] == 0).all()


def test_short_histories_are_0_or_1_slice_as_often_as_configured():
    config = dataclasses.replace(CONFIG, history=3, short_history_probability=0.4)
    lengths = []
    for seed in range(600):
        present = cut(40, seed, config)["present"][:3]
        assert present.diff().min() >= 0  # the history that is there is the latest
        lengths.append(int(present.sum()))
    counts = np.bincount(lengths, minlength=4)
    # Windows that start at slice 0, 1 or 2 of 38 are short anyway: 8 %. Then 0.2 each; three standard errors are 30.
    assert counts[0] == pytest.approx(600 * (0.2 + 0.6 / 38), abs=30)
    assert counts[1] == pytest.approx(600 * (0.2 + 0.6 / 38), abs=30)
    assert counts[2] == pytest.approx(600 * 0.6 / 38, abs=12)


def test_the_box_says_what_is_inside():
    inside = cut(9, 0)["inside"]
    assert inside[1:6, 0:5].all()
    assert inside.sum() == 25


@pytest.mark.parametrize(
    ("depth", "count", "places"), [(9, 5, [2, 3, 4, 5, 6]), (41, 3, [10, 20, 30]), (1, 3, [0, 0, 0])]
)
def test_the_style_is_seen_in_the_middle_half_of_a_volume(depth, count, places):
    assert style_places(depth, count).tolist() == places


def test_the_style_encoder_is_shown_those_slices():
    torch.testing.assert_close(cut(9, 0)["style_slices"][:, 0, 0], torch.tensor([0.2, 0.4, 0.6]))


def test_a_crop_is_the_same_square_of_everything_and_says_where_it_lies():
    rng, corners = np.random.default_rng(0), set()
    row, column = np.mgrid[:6, :7]
    mask = np.broadcast_to(10 * row + column, (9, 6, 7)).astype(np.uint8)
    example = Example(image=(mask / 100).astype(np.float32), mask=mask, box=(1, 6, 0, 5))
    for _ in range(200):
        batch = cut_window(example, dataclasses.replace(CONFIG, crop=4), rng)
        top, left = divmod(int(batch["masks"][-1, 0, 0]), 10)
        corners.add((top, left))
        square = slice(top, top + 4), slice(left, left + 4)
        assert batch["masks"][-1].tolist() == mask[-1][square].tolist()
        for name in ("images", "style_slices"):
            torch.testing.assert_close(batch[name][-1], torch.from_numpy(example.image[0][square]))
        whole = places_in_plane((6, 7), range(6), range(7))
        assert torch.equal(batch["places"], whole[:, *square])
        assert batch["inside"].bool().tolist() == ((row >= 1) & (column < 5))[square].tolist()
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_a_crop_larger_than_the_plane_is_the_plane():
    batch = cut(9, 0, dataclasses.replace(CONFIG, crop=100))
    assert batch["images"].shape == (5, 6, 7)


def test_recomputing_saves_memory_and_changes_no_gradient(stage, copying_networks):
    batch, found = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1] * 5), []
    generator = copying_networks["generator"]
    calls = []
    generator.enter.register_forward_pre_hook(lambda *_: calls.append(1))
    for recompute in (False, True):
        generator.zero_grad()
        config = dataclasses.replace(stage.config, recompute=recompute)
        slices, *_ = generate_window(copying_networks, batch, config, torch.Generator().manual_seed(0), False)
        torch.stack([made.image for made in slices]).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in generator.parameters() if parameter.grad is not None])
    assert len(calls) == 3 + 6  # forwards, and forwards once more on the way back
    assert len(found[0]) > 10
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def batch_of(image_values: list[float], present: list[float]) -> dict[str, torch.Tensor]:
    """One window of 2 + 3 slices of 6 x 7 pixels, each of one grey value."""
    shown = torch.tensor([present])
    images = torch.tensor([image_values])[:, :, None, None].expand(1, 5, 6, 7).clone()
    masks = torch.where(shown > 0, 1, NO_LABEL)[:, :, None, None].expand(1, 5, 6, 7).clone()
    inside = torch.zeros(1, 6, 7)
    inside[:, :3] = 1
    return {
        "images": images * shown[:, :, None, None],
        "masks": masks,
        "present": shown,
        "position": torch.full((1, 5), 0.5),
        "inside": inside,
        "style_slices": torch.rand(1, 3, 6, 7),
        "places": places_in_plane((6, 7), range(6), range(7))[None],
    }


@pytest.mark.parametrize(("forced", "expected"), [(True, [0.2, 0.3, 0.4]), (False, [0.2, 0.2, 0.2])])
def test_the_generator_sees_real_slices_when_forced_and_otherwise_its_own(stage, copying_networks, forced, expected):
    batch = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1, 1, 1, 1, 1])
    slices, _, _ = generate_window(copying_networks, batch, stage.config, torch.Generator(), forced)
    assert [float(made.image.detach().mean()) for made in slices] == pytest.approx(expected)


def test_without_history_the_first_slice_is_synthesised_and_the_second_follows_it(stage, copying_networks):
    batch = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 1, 1])
    slices, _, _ = generate_window(copying_networks, batch, stage.config, torch.Generator(), forced=True)
    assert [float(made.image.detach().mean()) for made in slices] == pytest.approx(
        [0.0, 0.3, 0.4]
    )  # tanh(0), then copies


def test_the_style_is_drawn_around_the_encoder_s_mean(stage, copying_networks):
    to_style, shown = copying_networks["style_encoder"].to_style, []
    with torch.no_grad():
        to_style.weight.zero_()
        to_style.bias.copy_(torch.tensor([3.0] * 4 + [-4.0] * 4))  # standard deviation e^-2
    copying_networks["generator"].register_forward_pre_hook(lambda _, inputs: shown.append(inputs[1]))
    batch = {key: value.expand(400, *value.shape[1:]) for key, value in batch_of([0.1] * 5, [1] * 5).items()}
    with torch.no_grad():
        generate_window(copying_networks, batch, stage.config, torch.Generator().manual_seed(0), True)
    assert all(torch.equal(style, shown[0]) for style in shown)  # one style along the whole window
    assert float(shown[0].mean()) == pytest.approx(3.0, abs=0.02)
    assert float(shown[0].std()) == pytest.approx(np.exp(-2), rel=0.1)


def test_reconstruction_is_the_mean_distance_inside_the_case_where_there_are_slices(stage):
    # Real slices: 0.3, 0.4 and none. Inside the case the image is off by 0.2 and 0.1, elsewhere by far more.
    batch = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 1, 0])
    slices = []
    for image, warped in [(0.5, 9.0), (0.5, 0.0), (9.0, 9.0)]:
        made = torch.full((1, 6, 7), image)
        made[:, 3:] = 9.0
        slices.append(Slice(made, torch.full((1, 6, 7), warped), torch.ones(1, 6, 7)))
    l1, flow = reconstruction(slices, batch, stage.config)
    assert float(l1) == pytest.approx(0.15)
    assert float(flow) == pytest.approx(0.4)  # only the second slice has a previous one: |0.0 - 0.4|


def test_feature_distance_is_a_mean_over_every_layer_of_every_scale():
    real = [[torch.zeros(2, 3), torch.zeros(5)], [torch.zeros(1), torch.zeros(4), torch.zeros(2)]]
    fake = [[torch.full((2, 3), 1.0), torch.full((5,), 2.0)], [torch.zeros(1), torch.full((4,), 3.0), -torch.ones(2)]]
    assert float(feature_distance(real, fake)) == pytest.approx((1 + 2 + 0 + 3 + 1) / 5)


def test_matching_features_does_not_teach_the_real_side():
    real, fake = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    feature_distance([[real]], [[fake]]).backward()
    assert real.grad is None
    assert fake.grad is not None


@pytest.fixture
def judged(stage, copying_networks):
    """Networks whose discriminators score 0.25 everywhere and whose style is N(1, 1)."""
    with torch.no_grad():
        for judge in ("slice_discriminator", "sequence_discriminator"):
            for scale in copying_networks[judge].scales.children():
                scale.final_conv.conv.weight.zero_()
                scale.final_conv.conv.bias.fill_(0.25)
        to_style = copying_networks["style_encoder"].to_style
        to_style.weight.zero_()
        to_style.bias.copy_(torch.tensor([1.0] * 4 + [0.0] * 4))
    return copying_networks


def test_a_discriminator_that_cannot_tell_pays_the_least_squares_of_both_sides(stage, judged):
    batch = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1] * 5)
    losses = stage.loss("discriminator", judged, batch, torch.Generator(), 0.0)
    # Half of (0.25 - 1)^2 + 0.25^2.
    assert float(losses["slice"].detach()) == pytest.approx(0.3125)
    assert float(losses["sequence"].detach()) == pytest.approx(0.3125)
    assert float(losses["total"].detach()) == pytest.approx(0.625)


def test_the_generator_pays_for_each_of_its_faults_as_weighted(stage, judged):
    batch, config = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1] * 5), stage.config
    losses = {
        name: float(term.detach())
        for name, term in stage.loss("generator", judged, batch, torch.Generator(), 0.0).items()
    }
    assert losses["adversarial"] == pytest.approx(2 * (0.25 - 1) ** 2)  # both discriminators
    assert losses["l1"] == pytest.approx(0.1)  # copies of the previous slice
    assert losses["flow"] == pytest.approx(0.1)
    assert losses["kl"] == pytest.approx(0.5 * 4)  # mean^2 / 2 for each of the 4 numbers
    assert losses["style_spread"] == pytest.approx(2**0.5)  # a mean of 1 and a variance of 1
    assert losses["feature_matching"] > 0
    weighted = (
        config.adversarial_weight * losses["adversarial"]
        + config.feature_matching_weight * losses["feature_matching"]
        + config.l1_weight * losses["l1"]
        + config.flow_weight * losses["flow"]
        + config.kl_weight * losses["kl"]
    )
    assert losses["total"] == pytest.approx(weighted)


def test_own_slices_are_seen_once_the_teacher_forced_share_is_over(stage, judged):
    batch, share = batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1] * 5), stage.config.teacher_forced_share
    l1 = [
        float(stage.loss("generator", judged, batch, torch.Generator(), progress)["l1"].detach())
        for progress in (share, share + 0.01)
    ]
    assert l1 == pytest.approx([0.1, 0.2])  # own copies of 0.2 are off by 0.1, 0.2 and 0.3


def test_padding_does_not_help_the_discriminators(stage, judged):
    # Outside the case, real and generated planes are 0 alike, whatever they hold there.
    shown = []
    judged["slice_discriminator"].register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    stage.loss("discriminator", judged, batch_of([0.1, 0.2, 0.3, 0.4, 0.5], [1] * 5), torch.Generator(), 0.0)
    assert len(shown) == 2
    assert all((images[..., 3:, :] == 0).all() and (images[..., :3, :] != 0).all() for images in shown)
