import dataclasses

import numpy as np
import pytest
import torch

from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest, Walk
from medgen3d_stages.image_sequence_generator.stage import ImageSequenceGenerator
from medgen3d_stages.layers.label_code import NO_LABEL

SPEC = DataSpec(num_labels=12, plane=(6, 7), spacing_mm=(1.0, 1.0, 1.0), max_depth=9)


def numbered_mask(depth: int, most_at: int) -> np.ndarray:
    """Slice z holds the label z + 1 in one pixel, and in two where there is `most` foreground."""
    mask = np.zeros((depth, 4, 5), dtype=np.uint8)
    mask[:, 0, 0] = np.arange(1, depth + 1)
    mask[most_at, 0, 1] = most_at + 1
    return mask


@pytest.fixture
def walk() -> Walk:
    """Six slices, started at number 3; slice z is grey z."""
    walk = Walk(ImageRequest(mask=numbered_mask(6, most_at=3)), SPEC, torch.zeros(4))
    walk.image += torch.arange(6.0)[:, None, None]
    return walk


def test_a_walk_begins_at_the_slice_with_most_foreground(walk):
    assert walk.first == 3


@pytest.mark.parametrize(
    ("direction", "number", "expected"), [(0, 0, 3), (0, 2, 5), (0, 3, None), (1, 0, 3), (1, 3, 0), (1, 4, None)]
)
def test_slices_are_numbered_outwards_until_the_volume_ends(walk, direction, number, expected):
    assert walk.place(direction, number) == expected


@pytest.mark.parametrize(
    ("direction", "number", "slices"),
    [
        (0, 0, [None, None, 3]),
        (0, 1, [None, 3, 4]),
        (0, 2, [3, 4, 5]),
        (1, 1, [None, 3, 2]),
        (1, 2, [3, 2, 1]),
        (1, 3, [2, 1, 0]),
    ],
)
def test_the_history_is_in_the_order_of_generation_both_ways(walk, direction, number, slices):
    masks, images, present = walk.history(direction, number, 2)
    labels = [NO_LABEL if place is None else place + 1 for place in slices]
    assert masks[:, 1, 1].tolist() == labels  # the mask lies in the middle of the plane: 1 pixel down, 1 right
    assert present.tolist() == [float(place is not None) for place in slices[:2]]
    assert images[:, 0, 0].tolist() == [float(place or 0) for place in slices[:2]]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.zeros((3, 7, 7), np.uint8), r"at most \(6, 7\) pixels in plane, got shape \(3, 7, 7\)"),
        (np.zeros((0, 4, 4), np.uint8), "got shape"),
        (np.zeros((4, 4), np.uint8), "got shape"),
        (np.full((1, 4, 4), 12), "holds label 12; labels are 0 to 11"),
        (np.full((1, 4, 4), -3), "holds label -3"),
    ],
)
def test_a_mask_that_the_model_does_not_know_is_refused(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        Walk(ImageRequest(mask=mask), SPEC, torch.zeros(4))


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_every_slice_is_made_once_first_outwards_and_knows_its_place(stage, copying_networks):
    calls = []
    copying_networks["generator"].register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    requests = [ImageRequest(mask=numbered_mask(6, 3)), ImageRequest(mask=numbered_mask(2, 0))]
    stage.sample(copying_networks, requests, generators(2))
    labels = [history.masks[:, -1, 1, 1].tolist() for history, *_ in calls]
    assert labels == [[4, 1], [5, 3, 2], [6, 2], [1]]  # z + 1; both volumes and both ways in one batch
    positions = [position.tolist() for _, _, position, _ in calls]
    assert positions[0] == pytest.approx([3.5 / 6, 0.5 / 2])
    assert positions[1] == pytest.approx([4.5 / 6, 2.5 / 6, 1.5 / 2])


def test_a_volume_keeps_one_style_from_its_own_stream(stage, copying_networks):
    styles = []
    copying_networks["generator"].register_forward_pre_hook(lambda _, inputs: styles.append(inputs[1]))
    stage.sample(copying_networks, [ImageRequest(mask=numbered_mask(3, 1))] * 2, generators(2))
    one, two = (torch.randn(4, generator=generator) for generator in generators(2))
    torch.testing.assert_close(styles[0], torch.stack([one, two]))
    torch.testing.assert_close(styles[1], torch.stack([one, one, two, two]))


def test_volumes_of_one_style_seed_share_their_style_whatever_their_own_streams(stage, copying_networks):
    styles = []
    copying_networks["generator"].register_forward_pre_hook(lambda _, inputs: styles.append(inputs[1]))
    request = ImageRequest(mask=numbered_mask(3, 1), style_seed=5)
    stage.sample(copying_networks, [request, request, ImageRequest(mask=numbered_mask(3, 1))], generators(3))
    shared = torch.randn(4, generator=torch.Generator().manual_seed(5))
    own = torch.randn(4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(styles[0], torch.stack([shared, shared, own]))


def test_styles_are_drawn_as_wide_as_is_chosen(stage, copying_networks):
    def drawn(spread: float) -> torch.Tensor:
        chosen = type(stage)(dataclasses.replace(stage.config, style_spread=spread), stage.spec)
        styles = []
        hook = copying_networks["generator"].register_forward_pre_hook(lambda _, inputs: styles.append(inputs[1]))
        chosen.sample(copying_networks, [ImageRequest(mask=numbered_mask(3, 1))], generators(1))
        hook.remove()
        return styles[0]

    assert torch.equal(drawn(2.0), 2 * drawn(1.0))
    assert torch.equal(drawn(0.0), torch.zeros(1, 4))


def test_slices_follow_the_slice_before_them(stage: ImageSequenceGenerator, copying_networks):
    # A generator that copies (o = 0): the whole volume repeats the first slice, which is synthesised (o = 1): 0.5.
    with torch.no_grad():
        copying_networks["generator"].heads.bias[0] = 0.549306  # tanh of it is 0.5
    (image,) = stage.sample(copying_networks, [ImageRequest(mask=numbered_mask(6, 3))], generators(1))
    assert image.shape == (6, 4, 5)
    np.testing.assert_allclose(image, 0.5, atol=1e-6)


def test_a_mask_without_foreground_is_walked_from_its_first_slice(stage, copying_networks):
    (image,) = stage.sample(copying_networks, [ImageRequest(mask=np.zeros((3, 4, 5), np.uint8))], generators(1))
    assert image.shape == (3, 4, 5)
