"""What every stage must do, whatever it computes inside."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medgen3d.training.loop import Turn


def test_one_batch_is_learnt_by_heart(fitted):
    # Measured with the same noise before and after 60 steps. For the GAN the term is the L1 distance to the real
    # slices: its adversarial terms are a balance between two players and need not fall.
    after = fitted.tiny.loss(fitted.state.networks, fitted.turn, fitted.term)
    assert after < fitted.loss_before / 2


def draws_nothing(tiny):
    """The segmenter says what it sees; the others draw."""
    return tiny.stage.name == "segmenter"


def test_a_sample_has_the_shape_the_range_and_the_type_of_what_was_asked_for(fitted):
    tiny = fitted.tiny
    for example, sample in zip(tiny.examples[:3], fitted.sample(), strict=True):
        assert sample.shape == example.cropped()[1].shape
        if tiny.stage.name in ("mask_generator", "segmenter"):
            assert np.issubdtype(sample.dtype, np.unsignedinteger)
            assert sample.max() < tiny.stage.spec.num_labels
        else:
            assert sample.dtype == np.float32
            assert -1 <= sample.min() < sample.max() <= 1


def test_the_same_seeds_give_the_same_bytes_and_other_seeds_other_samples(fitted):
    one, two = fitted.sample(), fitted.sample()
    assert [sample.tobytes() for sample in one] == [sample.tobytes() for sample in two]
    others = fitted.sample(generators=fitted.tiny.generators(first_seed=100))
    differs = [sample.tobytes() != other.tobytes() for sample, other in zip(one, others, strict=True)]
    assert differs == [not draws_nothing(fitted.tiny)] * len(one)


def test_saved_and_loaded_weights_give_equal_samples(fitted, tmp_path):
    loaded = fitted.tiny.stage.build()
    for name, network in fitted.state.sampling_networks().items():
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
        loaded[name].load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
    sampled = {name: loaded[name].to(fitted.tiny.batch_device).eval() for name in fitted.tiny.stage.sampled}
    for sample, again in zip(fitted.sample(), fitted.sample(networks=sampled), strict=True):
        np.testing.assert_array_equal(sample, again)


def test_a_batch_gives_what_its_items_give_alone(fitted):
    together = fitted.sample()
    for number, (request, sample) in enumerate(zip(fitted.tiny.requests, together, strict=True)):
        generator = fitted.tiny.generators()[number]
        (alone,) = fitted.sample(inputs=[request], generators=[generator])
        if fitted.tiny.stage.name in ("mask_generator", "segmenter"):
            # Sums in another order differ by about 1e-6; a label flips only where two are that close to equal.
            assert alone.any()
            assert np.mean(alone != sample) < 0.01
        else:
            np.testing.assert_allclose(alone, sample, atol=1e-4)


def test_a_preview_shows_the_real_volume_without_its_padding(fitted):
    for example in fitted.tiny.examples[:2]:
        generator = torch.Generator().manual_seed(3)
        image, mask = fitted.tiny.stage.preview(fitted.state.sampling_networks(), example, generator)
        assert image.shape == mask.shape == example.cropped()[1].shape
        assert image.dtype == np.float32
        if fitted.tiny.stage.name != "mask_generator":
            shown = image if draws_nothing(fitted.tiny) else mask
            np.testing.assert_array_equal(shown, example.cropped()[0 if draws_nothing(fitted.tiny) else 1])


def test_examples_of_any_volume_have_the_same_shapes_and_types(tiny):
    cut = [tiny.stage.cut(example, np.random.default_rng(seed)) for example in tiny.examples for seed in range(10)]
    forms = {tuple((key, value.shape, value.dtype) for key, value in batch.items()) for batch in cut}
    assert len(forms) == 1


def test_an_example_and_a_loss_depend_on_their_streams_alone(fitted):
    tiny = fitted.tiny
    for seed in range(5):
        one, two = (tiny.stage.cut(tiny.examples[0], np.random.default_rng(seed)) for _ in range(2))
        assert all(torch.equal(one[key], two[key]) for key in one)
    for turn in tiny.stage.turns:
        one, two, other = (
            tiny.stage.loss(turn, fitted.state.networks, tiny.batch, torch.Generator().manual_seed(seed), 0.5)["total"]
            for seed in (1, 1, 2)
        )
        assert one == two
        assert (other != one) is not draws_nothing(tiny)


def test_bfloat16_gives_finite_losses_and_weights(tiny, train_briefly):
    state, losses = train_briefly(tiny, "bf16")
    assert len(losses) == 3
    assert all(math.isfinite(value) for step in losses for value in step.values())
    for network in state.networks.values():
        assert all(parameter.isfinite().all() for parameter in network.parameters())
    _, exact = train_briefly(tiny, "fp32")
    assert losses[0] != exact[0]  # it really was bfloat16, whose numbers have 8 bits: 0.4 %
    assert losses[0] == pytest.approx(exact[0], rel=0.02)


def test_a_turn_trains_every_parameter_of_its_networks_and_no_other(fitted):
    # After some steps: MONAI sets output layers to zero, which holds all gradients back at the first step.
    networks = copy.deepcopy(fitted.state.networks)
    for turn_name, trained in fitted.tiny.stage.turns.items():
        turn = Turn(fitted.tiny.stage, turn_name, networks)
        turn.select()
        for network in networks.values():
            network.zero_grad(set_to_none=True)
        turn(fitted.tiny.batch, torch.Generator().manual_seed(0), 1.0)["total"].backward()
        for name, network in networks.items():
            for parameter_name, parameter in network.named_parameters():
                if name in trained:
                    assert parameter.grad is not None, f"{name}.{parameter_name} gets no gradient"
                    assert parameter.grad.isfinite().all(), f"{name}.{parameter_name}"
                    assert parameter.grad.abs().max() > 0, f"{name}.{parameter_name} gets a gradient of zeros"
                else:
                    assert parameter.grad is None, f"{name}.{parameter_name} is not trained in turn {turn_name}"
