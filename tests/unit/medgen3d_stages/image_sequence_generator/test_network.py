import dataclasses

import pytest
import torch

from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import (
    Discriminator,
    History,
    SliceGenerator,
    StyleEncoder,
    places_in_plane,
    warp,
)

CONFIG = ImageSequenceGeneratorConfig(
    style=4, channels=(8, 16, 16), spade_channels=4, discriminator_channels=4, style_slices=3
)
PICTURE = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])


def uniform_flow(dx: float, dy: float) -> torch.Tensor:
    return torch.tensor([dx, dy])[None, :, None, None].expand(1, 2, 2, 3)


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (0.0, 0.0, [[0, 1, 2], [3, 4, 5]]),
        (1.0, 0.0, [[1, 2, 2], [4, 5, 5]]),  # each pixel is fetched from its right; the border continues
        (-1.0, 0.0, [[0, 0, 1], [3, 3, 4]]),
        (0.0, 1.0, [[3, 4, 5], [3, 4, 5]]),
        (0.5, 0.0, [[0.5, 1.5, 2], [3.5, 4.5, 5]]),
        (-9.0, -9.0, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_warping_by_a_known_flow_fetches_the_known_pixels(dx, dy, expected):
    torch.testing.assert_close(warp(PICTURE, uniform_flow(dx, dy)), torch.tensor([expected], dtype=torch.float32))


def test_each_pixel_has_a_flow_of_its_own():
    flow = torch.zeros(1, 2, 2, 3)
    flow[0, :, 0, 0] = torch.tensor([2.0, 1.0])  # fetches from row 1, column 2
    assert warp(PICTURE, flow)[0].tolist() == [[5, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_planes_of_one_row_or_column_are_warped_too(shape):
    image = torch.rand(1, *shape)
    torch.testing.assert_close(warp(image, torch.zeros(1, 2, *shape)), image)


def test_places_run_from_minus_one_to_one_over_the_whole_plane():
    places = places_in_plane((5, 3), range(1, 4), range(2))
    assert places[0].tolist() == [[-0.5, -0.5], [0, 0], [0.5, 0.5]]
    assert places[1].tolist() == [[-1, 0]] * 3


def history(height: int, width: int, present: list[float], num_labels: int = 2) -> History:
    rng = torch.Generator().manual_seed(0)
    shown = torch.tensor([present])
    masks = torch.randint(0, num_labels, (1, 3, height, width), generator=rng)
    images = 2 * torch.rand(1, 2, height, width, generator=rng) - 1
    return History(masks, images * shown[:, :, None, None], shown)


def generator(**options: object) -> SliceGenerator:
    torch.manual_seed(0)
    return SliceGenerator(dataclasses.replace(CONFIG, **options), num_labels=2)


def places(height: int, width: int) -> torch.Tensor:
    return places_in_plane((height, width), range(height), range(width))[None]


def with_heads(network: SliceGenerator, synthesised: float, dx: float, dy: float, occlusion: float) -> SliceGenerator:
    """The same answer everywhere: h = tanh(synthesised), the flow, o = sigmoid(occlusion)."""
    with torch.no_grad():
        network.heads.weight.zero_()
        network.heads.bias.copy_(torch.tensor([synthesised, dx, dy, occlusion]))
    return network


@pytest.mark.parametrize(("height", "width"), [(12, 20), (11, 21), (1, 5), (1, 1), (4, 4)])
def test_planes_of_any_size_come_back_in_their_size_and_range(height, width):
    made = generator()(
        history(height, width, [1.0, 1.0]), torch.randn(1, 4), torch.tensor([0.5]), places(height, width)
    )
    assert made.image.shape == made.warped.shape == made.occlusion.shape == (1, height, width)
    assert made.image.abs().max() <= 1
    assert ((made.occlusion >= 0) & (made.occlusion <= 1)).all()


def test_a_slice_is_composed_of_what_is_synthesised_and_the_warped_previous_slice():
    # o = sigmoid(ln 3) = 0.75, h = tanh(0.549306) = 0.5, warped: one pixel to the left.
    network, past = with_heads(generator(), 0.549306, 1.0, 0.0, 1.098612), history(6, 7, [1.0, 1.0])
    made = network(past, torch.zeros(1, 4), torch.zeros(1), places(6, 7))
    previous = past.images[:, -1]
    torch.testing.assert_close(made.warped[..., :-1], previous[..., 1:])
    torch.testing.assert_close(made.image[..., :-1], 0.75 * 0.5 + 0.25 * previous[..., 1:])


def test_the_first_slice_is_synthesised_alone():
    network = with_heads(generator(), 0.549306, 1.0, 0.0, -50.0)
    made = network(history(6, 7, [0.0, 0.0]), torch.zeros(1, 4), torch.zeros(1), places(6, 7))
    assert (made.occlusion == 1).all()
    torch.testing.assert_close(made.image, torch.full((1, 6, 7), 0.5))


def test_everything_the_generator_is_shown_matters():
    network, past = generator(crop=8), history(8, 8, [1.0, 1.0])
    style, position, where = torch.zeros(1, 4), torch.tensor([0.5]), places(8, 8)
    with torch.no_grad():
        made = network(past, style, position, where).image
        others = {
            "masks": network(past._replace(masks=past.masks.flip(1)), style, position, where),
            "images": network(past._replace(images=past.images.flip(1)), style, position, where),
            "presence": network(past._replace(present=torch.tensor([[0.0, 1.0]])), style, position, where),
            "style": network(past, style + 1, position, where),
            "position": network(past, style, position + 0.4, where),
            "places": network(past, style, position, where + 0.4),
        }
    for name, other in others.items():
        assert not torch.allclose(made, other.image, atol=1e-6), f"{name} is ignored"


def test_the_style_of_a_volume_is_a_mean_and_a_bounded_log_variance():
    mean, log_variance = StyleEncoder(CONFIG)(torch.randn(2, 3, 11, 13))
    assert mean.shape == log_variance.shape == (2, 4)
    _, extreme = StyleEncoder(CONFIG)(1e6 * torch.randn(2, 3, 11, 13))
    assert extreme.abs().max() <= 10


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 40), (64, 48)])
@pytest.mark.parametrize(("num_layers", "num_scales", "num_slices"), [(1, 1, 1), (2, 2, 1), (3, 1, 3)])
def test_discriminators_judge_planes_of_any_size(height, width, num_layers, num_scales, num_slices):
    config = dataclasses.replace(CONFIG, num_layers=num_layers)
    judge = Discriminator(config, num_labels=2, num_slices=num_slices, num_scales=num_scales)
    images, masks = torch.randn(2, num_slices, height, width), torch.randint(0, 2, (2, num_slices, height, width))
    scores, features = judge(images, masks)
    assert len(scores) == len(features) == num_scales
    assert all(score.shape[:2] == (2, 1) and score.isfinite().all() for score in scores)
    # One layer before those that are configured; the score itself is no feature. Scale s has s times the layers.
    assert [len(scale) for scale in features] == [1 + num_layers * (scale + 1) for scale in range(num_scales)]


def test_a_discriminator_sees_image_and_mask():
    judge = Discriminator(CONFIG, num_labels=2, num_slices=1, num_scales=1).eval()
    images, masks = torch.randn(1, 1, 24, 24), torch.randint(0, 2, (1, 1, 24, 24))
    with torch.no_grad():
        score = judge(images, masks)[0][0]
        assert not torch.allclose(judge(-images, masks)[0][0], score)
        assert not torch.allclose(judge(images, 1 - masks)[0][0], score)


def test_a_generator_of_whole_planes_takes_no_notice_of_places():
    network, past = generator(), history(8, 8, [1.0, 1.0])
    with torch.no_grad():
        made = [network(past, torch.zeros(1, 4), torch.zeros(1), places(8, 8) + shift).image for shift in (0, 1)]
    assert torch.equal(*made)
