import dataclasses
import pickle

import pytest
import torch

from medgen3d.config.training import StageTraining
from medgen3d.core.errors import ArtifactError
from medgen3d.training.state import TrainingState, learning_rate_share
from medgen3d_stages.refiner.stage import Refiner

CPU = torch.device("cpu")
SETTINGS = StageTraining(steps=10, warmup_steps=2, ema_decay=0.9)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (6, 0.853553), (8, 0.5), (10, 0.146447), (12, 0.0), (20, 0.0)],
)
def test_the_learning_rate_warms_up_in_a_line_and_falls_along_half_a_cosine(step, share):
    # Warm-up over 4 steps, then 8 steps of cosine: (1 + cos 45 deg) / 2 at step 6, (1 + cos 135 deg) / 2 at step 10.
    assert learning_rate_share(step, warmup_steps=4, steps=12) == pytest.approx(share, abs=1e-6)


def test_a_run_without_warm_up_begins_at_the_full_rate():
    assert learning_rate_share(0, 0, 10) == 1.0


def state_with_constant_weights(refiner: Refiner, decay: float) -> TrainingState:
    state = TrainingState(refiner, SETTINGS.model_copy(update={"ema_decay": decay}), 0, CPU)
    fill(state, 0.0)
    return state


def fill(state: TrainingState, value: float) -> None:
    with torch.no_grad():
        for parameter in state.networks["denoiser"].parameters():
            parameter.fill_(value)


def average(state: TrainingState) -> float:
    (value,) = {float(parameter.detach().flatten()[0]) for parameter in state.ema["denoiser"].module.parameters()}
    return value


def test_the_average_follows_quickly_at_first_and_never_holds_the_random_start(refiner):
    state = state_with_constant_weights(refiner, decay=0.9)
    fill(state, 1.0)
    state.update_ema()
    assert average(state) == 1.0  # the first update copies
    fill(state, 2.0)
    state.update_ema()
    # After 1 update the kept share is (1 + 1) / (10 + 1) = 2 / 11: 1 * 2 / 11 + 2 * 9 / 11.
    assert average(state) == pytest.approx(20 / 11)
    fill(state, 0.0)
    state.update_ema()
    assert average(state) == pytest.approx(20 / 11 * 3 / 12)


def test_the_average_ends_at_the_configured_decay(refiner):
    state = state_with_constant_weights(refiner, decay=0.5)
    for _ in range(20):
        state.update_ema()
    fill(state, 8.0)
    state.update_ema()
    assert average(state) == pytest.approx(4.0)


def test_the_sampling_networks_are_the_averages_of_those_that_sampling_needs(gan):
    state = TrainingState(gan, SETTINGS, 0, CPU)
    assert state.sampling_networks().keys() == {"generator"}
    assert not state.sampling_networks()["generator"].training
    weights = state.bundle_weights()
    assert {name.split("/")[0] for name in weights} == {"generator"}
    assert {name.split("/", 1)[1] for name in weights} == state.networks["generator"].state_dict().keys()
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in weights.values())


def test_initial_weights_depend_on_the_seed_alone(refiner):
    torch.manual_seed(99)
    one = TrainingState(refiner, SETTINGS, 1, CPU).networks["denoiser"].state_dict()
    torch.manual_seed(100)
    two, other = (TrainingState(refiner, SETTINGS, seed, CPU).networks["denoiser"].state_dict() for seed in (1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_each_turn_has_an_optimizer_over_its_own_networks(gan):
    state = TrainingState(gan, SETTINGS, 0, CPU)
    for turn, names in gan.turns.items():
        expected = {id(parameter) for name in names for parameter in state.networks[name].parameters()}
        found = {id(parameter) for group in state.optimizers[turn].param_groups for parameter in group["params"]}
        assert found == expected


@pytest.fixture
def checkpoint(tmp_path, refiner):
    """A folder with the checkpoint of a run that took 7 steps."""
    state = TrainingState(refiner, SETTINGS, 0, CPU)
    state.step = 7
    state.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_checkpoint_holds_the_whole_state(checkpoint, refiner):
    restored = TrainingState(refiner, SETTINGS, 1, CPU)
    restored.restore(checkpoint)
    saved = TrainingState(refiner, SETTINGS, 0, CPU)
    assert restored.step == 7
    for found, expected in ((restored.networks, saved.networks), (restored.ema, saved.ema)):
        for name, network in expected.items():
            for key, tensor in network.state_dict().items():
                assert torch.equal(found[name].state_dict()[key], tensor)
    assert [path.name for path in checkpoint.iterdir()] == ["state.pt"]


def test_a_checkpoint_is_replaced_by_the_next_one(checkpoint, refiner):
    state = TrainingState(refiner, SETTINGS, 0, CPU)
    state.step = 8
    state.save(checkpoint)
    state.step = 0
    state.restore(checkpoint)
    assert state.step == 8


def all_weights(state: TrainingState) -> dict[str, torch.Tensor]:
    live = {f"live/{key}": tensor.clone() for key, tensor in state.networks["denoiser"].state_dict().items()}
    return live | {key: tensor.clone() for key, tensor in state.bundle_weights().items()}


def damaged(content: bytes) -> list[bytes]:
    return [
        b"",
        b"no checkpoint at all",
        content[:100],
        content[: len(content) // 2],
        content[:-1],
        content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :],
        pickle.dumps(print),
    ]


@pytest.mark.parametrize("damage", range(7))
def test_a_damaged_checkpoint_is_named_with_what_to_do(checkpoint, refiner, damage):
    path = checkpoint / "state.pt"
    path.write_bytes(damaged(path.read_bytes())[damage])
    state = TrainingState(refiner, SETTINGS, 0, CPU)
    with pytest.raises(ArtifactError, match="Resume from an earlier one") as caught:
        state.restore(checkpoint)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_flipped_byte_goes_unnoticed(checkpoint, refiner):
    path, state = checkpoint / "state.pt", TrainingState(refiner, SETTINGS, 0, CPU)
    content, expected = path.read_bytes(), all_weights(state)
    refused = 0
    for position in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        try:
            state.restore(checkpoint)
        except ArtifactError:
            refused += 1
        else:  # a byte that means nothing
            assert all(torch.equal(tensor, expected[name]) for name, tensor in all_weights(state).items())
    assert refused > 10


def test_a_missing_checkpoint_is_named(tmp_path, refiner):
    with pytest.raises(ArtifactError, match=r"state\.pt: found .*No such file"):
        TrainingState(refiner, SETTINGS, 0, CPU).restore(tmp_path)


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path, refiner):
    torch.save([1, 2, 3], tmp_path / "state.pt")
    with pytest.raises(ArtifactError, match="found a damaged file"):
        TrainingState(refiner, SETTINGS, 0, CPU).restore(tmp_path)


def test_a_checkpoint_of_another_stage_or_version_is_refused(checkpoint, refiner, gan):
    with pytest.raises(ArtifactError, match=r"'refiner'.*'image_sequence_generator'"):
        TrainingState(gan, SETTINGS, 0, CPU).restore(checkpoint)
    content = torch.load(checkpoint / "state.pt", weights_only=True)
    torch.save(content | {"schema_version": 99}, checkpoint / "state.pt")
    with pytest.raises(ArtifactError, match="99"):
        TrainingState(refiner, SETTINGS, 0, CPU).restore(checkpoint)


def test_a_checkpoint_of_another_configuration_is_refused(checkpoint, refiner):
    wider = Refiner(dataclasses.replace(refiner.config, channels=(16,)), refiner.spec)
    with pytest.raises(ArtifactError, match="Resume with the configuration that the run was started with"):
        TrainingState(wider, SETTINGS, 0, CPU).restore(checkpoint)
