import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.layers.label_code import NO_LABEL
from medgen3d_stages.refiner.network import SliceDenoiser
from medgen3d_stages.refiner.sampler import RefineRequest
from medgen3d_stages.refiner.stage import Refiner

SPEC = DataSpec(num_labels=3, plane=(9, 10), spacing_mm=(1.0, 1.0, 1.0), max_depth=12)


def request(shape: tuple[int, int, int] = (5, 7, 9), seed: int = 0) -> RefineRequest:
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, shape).astype(np.float32)
    return RefineRequest(image=image, mask=rng.integers(0, 3, shape, dtype=np.uint8))


def refine(network: SliceDenoiser, config, requests: list[RefineRequest], seed: int = 0, **options: object):
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(requests))]
    return Refiner(dataclasses.replace(config, **options), SPEC).sample({"denoiser": network}, requests, generators)


def record(network: SliceDenoiser) -> list[tuple[Tensor, ...]]:
    """What the network is shown from now on, call by call."""
    calls: list[tuple[Tensor, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 7, 9), (1, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize("fusion", ["alternate", "average", "sequential"])
def test_volumes_of_any_size_come_back_in_their_size_and_range(network, config, fusion, shape):
    asked = request(shape)
    kept_image, kept_mask = asked.image.copy(), asked.mask.copy()
    (refined,) = refine(network, config, [asked], fusion=fusion)
    assert refined.shape == shape
    assert refined.dtype == np.float32
    assert np.abs(refined).max() <= 1
    np.testing.assert_array_equal(asked.image, kept_image)
    np.testing.assert_array_equal(asked.mask, kept_mask)


def test_the_views_take_turns_step_by_step(network, config):
    calls = record(network)
    refine(network, config, [request()], slice_batch=100)
    assert [int(view[0]) for _, _, view, _ in calls] == [1, 0, 2, 1]
    # 7 coronal slices of 5 x 9, 5 axial ones of 7 x 9, 9 sagittal ones of 5 x 7; sides are padded to multiples of 2.
    assert [tuple(noisy.shape) for noisy, *_ in calls[:3]] == [(7, 1, 6, 10), (5, 1, 8, 10), (9, 1, 6, 8)]


@pytest.mark.parametrize("fusion", ["average", "sequential"])
def test_the_other_fusions_finish_one_view_after_the_other(network, config, fusion):
    calls = record(network)
    refine(network, config, [request()], slice_batch=100, fusion=fusion)
    assert [int(view[0]) for _, _, view, _ in calls] == [1] * 4 + [0] * 4 + [2] * 4


def test_refinement_starts_and_ends_at_its_shares_of_the_schedule_with_even_factors_of_noise(network, config):
    calls = record(network)
    refine(network, config, [request()], slice_batch=100, start=0.35, end=0.05)
    # Noise over signal 0.61, 0.31, 0.16 and 0.08: each about half of the one before.
    assert [int(step[0]) for *_, step in calls] == [34, 18, 9, 4]


def test_every_slice_is_shown_with_its_own_mask_in_its_own_view(network, config):
    calls, asked = record(network), request()
    refine(network, config, [asked], slice_batch=100)
    for (_, masks, view, _), axis in zip(calls[:3], (1, 0, 2), strict=True):
        expected = np.moveaxis(asked.mask, axis, 0)
        height, width = expected.shape[1:]
        np.testing.assert_array_equal(masks[:, :height, :width], expected)
        assert (view == axis).all()


def test_slices_are_noised_with_one_field_and_padded_by_reflection(network, config):
    calls, asked = record(network), request()
    refine(network, config, [asked], slice_batch=100)
    noisy, masks, *_ = calls[0]
    kept = cosine_signal_kept(100)[34]
    noise = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = kept.sqrt() * torch.from_numpy(asked.image) + (1 - kept).sqrt() * noise
    torch.testing.assert_close(noisy[:, 0, :5, :9], expected.movedim(1, 0))
    assert torch.equal(noisy[:, :, 5], noisy[:, :, 3])
    assert torch.equal(noisy[..., 9], noisy[..., 7])
    assert torch.equal(masks[..., 9], masks[..., 7])


def test_a_network_that_knows_the_clean_volume_leads_back_to_it_from_every_view(network, config):
    # The velocity of the true volume, told for whichever slices are asked for, must be assembled to that volume.
    asked, kept = request(), cosine_signal_kept(100)
    truth = torch.from_numpy(asked.image)

    def tell(_: SliceDenoiser, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        noisy, _, view, step = inputs
        slices = truth.movedim(int(view[0]), 0)[:, None]
        share, (height, width) = kept[step[0]], slices.shape[-2:]
        told = torch.zeros_like(answer)
        shown = noisy[..., :height, :width]
        told[..., :height, :width] = (share.sqrt() * shown - slices) / (1 - share).sqrt()
        return told

    network.register_forward_hook(tell)
    for fusion in ("alternate", "average", "sequential"):
        (refined,) = refine(network, config, [asked], slice_batch=100, fusion=fusion)
        np.testing.assert_allclose(refined, asked.image, atol=1e-4)


def test_the_size_of_the_slice_batches_changes_nothing(network, config):
    one, two = (refine(network, config, [request()], slice_batch=size)[0] for size in (1, 100))
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_a_late_start_stays_closer_to_the_incoming_volume(network, config):
    asked = request()
    near, far = (np.abs(refine(network, config, [asked], start=start)[0] - asked.image).mean() for start in (0.08, 0.9))
    assert near < far / 2


def test_guidance_of_1_is_no_guidance_and_more_moves_away_from_the_null_mask(network, config):
    off, nearly_off, strong = (
        refine(network, config, [request()], guidance=weight)[0] for weight in (1.0, 1.0 + 1e-6, 3.0)
    )
    np.testing.assert_allclose(off, nearly_off, atol=1e-4)
    assert np.abs(off - strong).max() > 1e-3
    calls = record(network)
    refine(network, config, [request()], guidance=3.0, slice_batch=100)
    assert [bool((masks != NO_LABEL).any()) for _, masks, _, _ in calls] == [True, False] * 4


@pytest.mark.parametrize(
    ("image_shape", "mask", "sentence"),
    [
        ((2, 4, 4), np.zeros((2, 4, 5), np.uint8), r"one shape, got \(2, 4, 4\) and \(2, 4, 5\)"),
        ((4, 4), np.zeros((4, 4), np.uint8), r"must be \[D, h, w\]"),
        ((1, 4, 4), np.full((1, 4, 4), 3), "holds label 3; labels are 0 to 2"),
        ((1, 4, 4), np.full((1, 4, 4), -1), "holds label -1"),
    ],
)
def test_what_cannot_be_refined_is_refused(network, config, image_shape, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        refine(network, config, [RefineRequest(image=np.zeros(image_shape, np.float32), mask=mask)])
