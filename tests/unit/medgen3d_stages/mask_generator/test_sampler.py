import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser
from medgen3d_stages.mask_generator.objective import denoising_loss
from medgen3d_stages.mask_generator.sampler import Draft, MaskRequest
from medgen3d_stages.mask_generator.stage import MaskGenerator

SPEC = DataSpec(num_labels=3, plane=(9, 10), spacing_mm=(1.0, 1.0, 1.0), max_depth=12)
CONFIG = MaskGeneratorConfig(
    window=4, overlap=1, channels=(8, 16), attention_levels=(False, False), diffusion_steps=30, sampling_steps=3
)


def given_slice(number: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 3, shape, dtype=np.uint8)


def draft(depth: int, window: int, overlap: int, known: set[int] = frozenset(), seed: int = 0) -> Draft:
    config = dataclasses.replace(CONFIG, window=window, overlap=overlap)
    request = MaskRequest(shape=(depth, 1, 1), given={index: np.full((1, 1), 2) for index in known})
    return Draft(request, config, SPEC, torch.Generator().manual_seed(seed))


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, set[int], int]:
    depth, window = draw(st.integers(1, 40)), draw(st.integers(2, 9))
    known = draw(st.sets(st.integers(0, depth - 1)) | st.just(set()))
    return depth, window, draw(st.integers(1, window - 1)), known, draw(st.integers(0, 99))


def play(plan: tuple[int, int, int, set[int], int]) -> None:
    """Follow a plan to its end and check it at every step."""
    depth, window, overlap, known, seed = plan
    mask = draft(depth, window, overlap, known, seed)
    drawn = np.zeros(depth, dtype=int)
    for number in range(depth + 1):
        starts = mask.next_windows()
        if not starts:
            break
        for start in starts:
            stop = min(start + window, depth)
            assert start >= 0
            assert start + window <= depth or (start, depth < window) == (0, True)
            before = mask.known[start:stop].clone()
            # The first window stands on a given slice, if there is one; the later ones on `overlap` known slices.
            assert before.sum() >= (overlap if number else min(len(known), 1))
            assert number == 0 or not before.all()  # the first one may happen to be given whole
            drawn[start:stop] += (~before).numpy()
            mask.fill(start, torch.ones(window, 9, 10, dtype=torch.long))
    assert mask.next_windows() == []
    assert drawn.tolist() == [int(index not in known) for index in range(depth)]
    assert mask.result()[:, 0, 0].tolist() == [2 if index in known else 1 for index in range(depth)]


@given(plans())
def test_every_plan_ends_with_each_slice_drawn_once_and_given_slices_kept(plan):
    play(plan)


@pytest.mark.parametrize("every", [0, 3, 5])
def test_every_depth_is_planned_with_and_without_scattered_slices(every):
    for depth in range(1, 41):
        play((depth, 8, 2, set(range(0, depth, every)) if every else set(), depth))


def test_windows_of_one_round_do_not_wait_for_one_another():
    # First window 4..7 of 12 slices; both ends are then extended at once, each from two known slices.
    mask = draft(12, window=4, overlap=2)
    mask.fill(4, torch.ones(4, 9, 10, dtype=torch.long))
    assert mask.next_windows() == [6, 2]
    mask.fill(6, torch.ones(4, 9, 10, dtype=torch.long))
    mask.fill(2, torch.ones(4, 9, 10, dtype=torch.long))
    assert mask.next_windows() == [8, 0]


def test_the_first_window_lies_anywhere():
    starts = {draft(9, window=4, overlap=1, seed=seed).next_windows()[0] for seed in range(100)}
    assert starts == set(range(6))


def test_an_extension_passes_over_slices_that_are_already_given():
    mask = draft(12, window=4, overlap=1, known={4, 5})
    mask.fill(0, torch.ones(4, 9, 10, dtype=torch.long))
    assert mask.next_windows() == [5]  # 0..5 are known; it stands on 5


@pytest.mark.parametrize("num_labels", [256, 257])
def test_masks_are_uint8_up_to_256_labels_and_uint16_beyond_whatever_they_hold(num_labels):
    spec = dataclasses.replace(SPEC, num_labels=num_labels)
    request = MaskRequest(shape=(1, 2, 2), given={0: np.ones((2, 2), dtype=np.uint16)})
    result = Draft(request, CONFIG, spec, torch.Generator()).result()
    assert result.dtype == (np.uint8 if num_labels == 256 else np.uint16)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (MaskRequest(shape=(0, 4, 4)), "at least 1 slice"),
        (MaskRequest(shape=(3, 10, 10)), r"at most \(9, 10\) pixels"),
        (MaskRequest(shape=(3, 4, 0)), r"shape \(3, 4, 0\) does not fit"),
        (MaskRequest(shape=(3, 4, 4), given={3: np.zeros((4, 4), np.uint8)}), "given slice 3"),
        (MaskRequest(shape=(3, 4, 4), given={0: np.zeros((4, 5), np.uint8)}), r"shape \(4, 5\) does not fit"),
        (MaskRequest(shape=(3, 4, 4), given={1: np.full((4, 4), 3)}), "holds label 3; labels are 0 to 2"),
        (MaskRequest(shape=(3, 4, 4), given={1: np.array([[-1] * 4, [0] * 4] * 2)}), "holds label -1"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused(request_, sentence):
    with pytest.raises(ValueError, match=sentence):
        Draft(request_, CONFIG, SPEC, torch.Generator())


@pytest.fixture
def network(awaken) -> MaskDenoiser:
    torch.manual_seed(0)
    return awaken(MaskDenoiser(CONFIG, SPEC.num_labels))


def sample(network: MaskDenoiser, requests: list[MaskRequest], seed: int = 0, **options: object) -> list[np.ndarray]:
    stage = MaskGenerator(dataclasses.replace(CONFIG, **options), SPEC)
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(requests))]
    return stage.sample({"denoiser": network}, requests, generators)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "ddpm"])
def test_given_slices_come_back_exactly(network, sampler, guidance):
    shapes = [(11, 9, 10), (6, 5, 7), (1, 3, 3), (2, 9, 4)]
    places = [{0, 3, 4, 9}, {5}, {0}, {1}]
    requests = [
        MaskRequest(shape=shape, given={index: given_slice(index, shape[1:]) for index in known})
        for shape, known in zip(shapes, places, strict=True)
    ]
    masks = sample(network, requests, sampler=sampler, guidance=guidance)
    assert [mask.shape for mask in masks] == shapes
    for request, mask in zip(requests, masks, strict=True):
        for index, expected in request.given.items():
            np.testing.assert_array_equal(mask[index], expected)


def test_a_whole_mask_may_be_given(network):
    given_slices = {index: given_slice(index, (4, 5)) for index in range(3)}
    (mask,) = sample(network, [MaskRequest(shape=(3, 4, 5), given=given_slices)])
    np.testing.assert_array_equal(mask, np.stack([given_slices[index] for index in range(3)]))


def test_given_slices_change_what_is_drawn_around_them(network):
    plain, conditioned = (
        sample(network, [MaskRequest(shape=(4, 9, 10), given=slices)])[0]
        for slices in ({0: np.zeros((9, 10), np.uint8)}, {0: np.full((9, 10), 2, np.uint8)})
    )
    assert (plain[1:] != conditioned[1:]).any()


def test_guidance_of_1_is_no_guidance_and_more_is_some(network):
    request = MaskRequest(shape=(10, 9, 10), given={2: given_slice(0, (9, 10))})
    off, nearly_off, strong = (sample(network, [request], guidance=weight)[0] for weight in (1.0, 1.0 + 1e-7, 4.0))
    assert np.mean(off != nearly_off) < 0.01
    assert np.mean(off != strong) > 0.01


def record(network: MaskDenoiser) -> list[tuple[Tensor, ...]]:
    """What the network is shown from now on, call by call."""
    calls: list[tuple[Tensor, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls


def test_sampling_shows_the_network_the_conditions_that_training_shows_it(network):
    # A volume of 3 slices in a window of 4, slices 0 and 1 known, 5 x 7 pixels in the middle of the plane.
    mask = np.zeros((4, 9, 10), dtype=np.int32)
    mask[:3, 2:7, 1:8] = np.random.default_rng(0).integers(0, 3, (3, 5, 7))
    valid = torch.zeros(1, 4, 9, 10, dtype=torch.bool)
    valid[:, :3, 2:7, 1:8] = True
    batch = {
        "mask": torch.from_numpy(mask)[None],
        "valid": valid,
        "known": torch.tensor([[True, True, False, False]]),
        "position": (torch.arange(4)[None] + 0.5) / 3,
        "depth": torch.tensor([3 / 12]),
    }
    calls = record(network)
    denoising_loss(network, batch, CONFIG, cosine_signal_kept(30), torch.Generator().manual_seed(0))
    request = MaskRequest(shape=(3, 5, 7), given={index: mask[index, 2:7, 1:8] for index in (0, 1)})
    sample(network, [request])
    for trained, sampled in zip(calls[0][1:6], calls[1][1:6], strict=True):
        torch.testing.assert_close(trained, sampled)
    unknown = torch.zeros(4, 9, 10, dtype=torch.bool)
    unknown[2, 2:7, 1:8] = True
    assert torch.equal(calls[0][0][..., ~unknown], calls[1][0][..., ~unknown])


def test_the_unconditional_pass_of_guidance_sees_the_given_slices_only_through_one_fixed_noise(network):
    calls, kept = record(network), cosine_signal_kept(30)
    sample(network, [MaskRequest(shape=(4, 9, 10), given={1: given_slice(3, (9, 10))})], guidance=2.0)
    assert len(calls) == 6  # two passes at each of 3 steps
    clean = calls[0][1][:, :, 1]
    assert (clean.abs() == 1).all()
    hidden_noise = []
    for noisy, known, indicator, _, _, _, step in calls[1::2]:
        assert not indicator.any()
        assert not known.any()
        share = kept[step[0]]
        hidden_noise.append((noisy[:, :, 1] - share.sqrt() * clean) / (1 - share).sqrt())
    torch.testing.assert_close(hidden_noise[0], hidden_noise[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(hidden_noise[0], hidden_noise[2], atol=1e-2, rtol=0)
    assert 0.8 < hidden_noise[0].std() < 1.2


def test_nothing_is_drawn_outside_a_case(network):
    calls = record(network)
    sample(network, [MaskRequest(shape=(10, 3, 4))])  # later windows see what earlier ones left outside
    outside = torch.ones(9, 10, dtype=torch.bool)
    outside[3:6, 3:7] = False
    background = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    for noisy, *_ in calls:
        assert (noisy[0][..., outside] == background).all()
