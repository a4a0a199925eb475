import itertools
import math
import pickle

import pytest
import torch

from medgen3d.config.training import StageTraining
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import TrainingDivergedError, Turn, train
from medgen3d.training.state import TrainingState
from medgen3d_stages.precision import uses_bf16

CPU = torch.device("cpu")
SETTINGS = StageTraining(steps=10, batch_size=2, learning_rate=1e-3, warmup_steps=2, ema_decay=0.9, precision="fp32")


def run(stage, prepared, state, settings=SETTINGS, seed=0, rank=0, stop_at=None, batch_change=None):
    """Train on the prepared set from the state's step on; the losses of each step."""
    seen = []
    examples = ExampleSet.of(prepared, stage, seed)
    loader = batches(examples, StepSampler(state.step, settings.steps, settings.batch_size, rank, 1), 0)

    def after_step(current, losses):
        seen.append(losses)
        return current.step != stop_at

    changed = map(batch_change, loader) if batch_change else loader
    train(stage, state, changed, settings, seed=seed, rank=rank, device=CPU, after_step=after_step)
    return seen


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    """Every number of a state that training changes."""
    parts = itertools.chain(state.networks.items(), state.ema.items())
    tensors = {
        f"{place}/{name}/{key}": tensor
        for place, (name, network) in enumerate(parts)
        for key, tensor in network.state_dict().items()
    }
    for turn, optimizer in state.optimizers.items():
        for number, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{turn}/{number}/{slot}": tensor for slot, tensor in slots.items()}
    return {key: tensor.clone() for key, tensor in tensors.items()}


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.mark.parametrize("kind", ["refiner", "gan"])
def test_an_interrupted_training_ends_with_the_same_bits_as_an_uninterrupted_one(kind, request, prepared, tmp_path):
    stage = request.getfixturevalue(kind)
    whole = TrainingState(stage, SETTINGS, 0, CPU)
    losses = run(stage, prepared, whole)
    first = TrainingState(stage, SETTINGS, 0, CPU)
    first_losses = run(stage, prepared, first, stop_at=5)
    assert first.step == len(first_losses) == 5
    first.save(tmp_path)
    second = TrainingState(stage, SETTINGS, 123, CPU)  # other weights, all replaced
    second.restore(tmp_path)
    assert first_losses + run(stage, prepared, second) == losses
    assert second.step == 10
    assert_equal(weights(second), weights(whole))
    assert [schedule.get_last_lr() for schedule in second.schedules.values()] == [
        schedule.get_last_lr() for schedule in whole.schedules.values()
    ]


def test_the_seed_and_the_rank_decide_the_noise(refiner, prepared):
    def first_loss(seed: int, rank: int) -> float:
        state = TrainingState(refiner, SETTINGS, 0, CPU)
        batch = next(iter(batches(ExampleSet.of(prepared, refiner, 0), StepSampler(0, 1, 2, 0, 1), 0)))
        seen = []
        train(
            refiner,
            state,
            [batch],
            SETTINGS,
            seed=seed,
            rank=rank,
            device=CPU,
            after_step=lambda _, losses: seen.append(losses["denoiser/total"]) is None,
        )
        return seen[0]

    assert first_loss(0, 0) == first_loss(0, 0)
    assert len({first_loss(0, 0), first_loss(1, 0), first_loss(0, 1)}) == 3


def test_every_step_has_noise_of_its_own(refiner, prepared):
    batch = next(iter(batches(ExampleSet.of(prepared, refiner, 0), StepSampler(0, 1, 2, 0, 1), 0)))
    standing = SETTINGS.model_copy(update={"learning_rate": 1e-12})
    state, seen = TrainingState(refiner, standing, 0, CPU), []
    train(
        refiner,
        state,
        [batch] * 4,
        standing,
        seed=0,
        device=CPU,
        after_step=lambda _, losses: seen.append(round(losses["denoiser/total"], 4)) is None,
    )
    assert len(set(seen)) == 4


def test_every_term_of_every_turn_is_reported_by_name(gan, prepared):
    losses = run(gan, prepared, TrainingState(gan, SETTINGS, 0, CPU), stop_at=1)
    assert losses[0].keys() == {
        "discriminator/total",
        "discriminator/slice",
        "discriminator/sequence",
        "discriminator/gradient_norm",
        "generator/total",
        "generator/adversarial",
        "generator/feature_matching",
        "generator/l1",
        "generator/flow",
        "generator/kl",
        "generator/style_spread",
        "generator/gradient_norm",
    }


def test_the_turns_of_a_step_follow_one_another_on_what_the_last_one_changed(gan, prepared):
    # The generator is judged by discriminators that have already learnt from this step.
    state, judged = TrainingState(gan, SETTINGS, 0, CPU), []
    before = {key: tensor.clone() for key, tensor in state.networks["slice_discriminator"].state_dict().items()}

    def look(module, inputs):
        now = module.state_dict()
        judged.append(any(not torch.equal(now[key], before[key]) for key in before))

    state.networks["slice_discriminator"].register_forward_pre_hook(look)
    run(gan, prepared, state, stop_at=1)
    assert judged == [False, False, True, True]  # real and generated slices, in each of the two turns


def test_a_turn_lets_gradients_reach_its_own_networks_and_no_others(gan):
    networks = gan.build()
    turns = {name: Turn(gan, name, networks) for name in gan.turns}
    for name, turn in turns.items():
        turn.select()
        for network_name, network in networks.items():
            trained = network_name in gan.turns[name]
            assert network.training
            assert all(parameter.requires_grad == trained for parameter in network.parameters())


def test_a_turn_holds_what_a_data_parallel_wrapper_must_synchronise(gan):
    networks = gan.build()
    for name, trained in gan.turns.items():
        held = {id(parameter) for parameter in Turn(gan, name, networks).parameters()}
        assert held == {id(parameter) for network in trained for parameter in networks[network].parameters()}


def test_every_turn_is_wrapped_once_and_called_through_its_wrapper(gan, prepared):
    wrapped, called = [], []

    def wrap(module):
        wrapped.append(module.turn_name)
        module.register_forward_hook(lambda turn, *_: called.append(turn.turn_name))
        return module

    state = TrainingState(gan, SETTINGS, 0, CPU)
    loader = batches(ExampleSet.of(prepared, gan, 0), StepSampler(0, 2, 2, 0, 1), 0)
    train(gan, state, loader, SETTINGS, seed=0, device=CPU, wrap=wrap, after_step=lambda *_: True)
    assert wrapped == ["discriminator", "generator"]
    assert called == ["discriminator", "generator"] * 2


def test_long_gradients_are_shortened_to_the_configured_norm(refiner, prepared):
    state, norms = TrainingState(refiner, SETTINGS, 0, CPU), []
    parameters = list(state.networks["denoiser"].parameters())

    def after_step(_, losses):
        left = math.sqrt(sum(float((parameter.grad**2).sum()) for parameter in parameters))
        norms.append((losses["denoiser/gradient_norm"], left))
        return True

    loader = batches(ExampleSet.of(prepared, refiner, 0), StepSampler(0, 3, 2, 0, 1), 0)
    settings = SETTINGS.model_copy(update={"clip_norm": 1e-3})
    train(refiner, state, loader, settings, seed=0, device=CPU, after_step=after_step)
    for before, left in norms:
        assert before > 1e-3  # what is reported is the length before
        assert left == pytest.approx(1e-3, rel=1e-3)


def with_image(value: float):
    """Put a value into one pixel of every image."""

    def change(batch):
        for name in batch.keys() & {"image", "images"}:
            batch[name][..., 3, 3] = value
        return batch

    return change


def from_step(number: int, change):
    steps = itertools.count(1)
    return lambda batch: change(batch) if next(steps) >= number else batch


@pytest.mark.parametrize("kind", ["refiner", "gan"])
def test_a_loss_that_is_no_number_stops_training_and_leaves_the_weights(kind, request, prepared):
    stage = request.getfixturevalue(kind)
    state, expected = (TrainingState(stage, SETTINGS, 0, CPU) for _ in range(2))
    run(stage, prepared, expected, stop_at=2)
    with pytest.raises(TrainingDivergedError) as caught:
        run(stage, prepared, state, batch_change=from_step(3, with_image(math.nan)))
    turn = next(iter(stage.turns))
    assert str(caught.value) == (
        f"{stage.name}: the loss of the {turn} became nan at step 3, expected a finite number. "
        f"Start another run with a smaller training.{stage.name}.learning_rate."
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert state.step == 2
    assert_equal(weights(state), weights(expected))


def test_a_gradient_that_is_no_number_stops_training_and_leaves_the_weights(refiner, prepared):
    # The loss may still be finite when its gradient is not; a step along it would make every weight nan.
    state, expected = (TrainingState(refiner, SETTINGS, 0, CPU) for _ in range(2))
    run(refiner, prepared, expected, stop_at=2)
    calls = itertools.count(1)
    bias = next(parameter for name, parameter in state.networks["denoiser"].named_parameters() if "bias" in name)
    bias.register_hook(lambda gradient: gradient * (math.inf if next(calls) >= 3 else 1))
    with pytest.raises(TrainingDivergedError, match=r"gradient of the denoiser became (nan|inf) at step 3"):
        run(refiner, prepared, state)
    assert state.step == 2
    assert_equal(weights(state), weights(expected))


def test_training_goes_on_until_it_is_told_to_stop_or_the_batches_end(refiner, prepared):
    state = TrainingState(refiner, SETTINGS, 0, CPU)
    assert len(run(refiner, prepared, state, stop_at=4)) == 4
    assert len(run(refiner, prepared, state)) == 6
    assert len(run(refiner, prepared, state)) == 0
    assert state.step == 10


def test_progress_is_the_share_of_the_configured_steps(gan, prepared, monkeypatch):
    seen, loss = [], type(gan).loss

    def listen(self, turn, networks, batch, rng, progress):
        seen.append(progress)
        return loss(self, turn, networks, batch, rng, progress)

    monkeypatch.setattr(type(gan), "loss", listen)
    run(gan, prepared, TrainingState(gan, SETTINGS, 0, CPU), stop_at=3)
    assert seen == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


@pytest.mark.parametrize(("precision", "expected"), [("bf16", True), ("fp32", False)])
def test_the_precision_that_is_asked_for_is_used(precision, expected):
    assert uses_bf16(precision, CPU) is expected
    assert isinstance(uses_bf16("auto", CPU), bool)
