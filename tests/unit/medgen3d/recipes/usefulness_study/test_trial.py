"""One trial: what each arm is trained on, how sources are mixed, how it is tested."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from medgen3d.config.load import load_config
from medgen3d.core.errors import DataError
from medgen3d.recipes.usefulness_study.trial import MixedExamples, TrialSpec, examples_of, mean_dice, run_trial
from medgen3d.training.stage_factory import stage_for

CPU = torch.device("cpu")
TRAIN = tuple(f"train_{number}" for number in range(6))


@pytest.fixture(scope="module")
def pairs(prepared, write_pairs, tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), prepared.digest, 5)


@pytest.fixture
def spec(prepared, pairs):
    def make(arm: str, *overrides: str, **changes: object) -> TrialSpec:
        config = load_config(presets=["smoke"], overrides=overrides)
        choices = {"case_ids": TRAIN, "data": prepared.root, "pairs": pairs, "num_pairs": 4, "seed": 0}
        return TrialSpec(arm=arm, config=config, **choices | changes)

    return make


def examples(spec: TrialSpec, prepared):
    return examples_of(spec, prepared, stage_for("segmenter", spec.config, prepared), seed=3)


class Constant(Dataset):
    """Whose every example is the same number and its place."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"source": torch.tensor(self.value), "number": torch.tensor(number)}


def sources(share: float, seed: int, count: int = 2000) -> list[int]:
    mixed = MixedExamples(Constant(1), Constant(0), share, seed)
    return [int(mixed[number]["source"]) for number in range(count)]


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_first_source_is_drawn_with_its_share(share):
    # 4 standard deviations of a binomial share of 2000 draws.
    assert np.mean(sources(share, seed=0)) == pytest.approx(share, abs=4 * (share * (1 - share) / 2000) ** 0.5)


def test_the_source_of_an_example_follows_from_seed_and_number_alone():
    forwards, mixed = sources(0.5, seed=7, count=50), MixedExamples(Constant(1), Constant(0), 0.5, seed=7)
    assert [int(mixed[number]["source"]) for number in reversed(range(50))] == forwards[::-1]
    assert sources(0.5, seed=8, count=50) != forwards
    assert [int(mixed[number]["number"]) for number in range(50)] == list(range(50))


def test_the_real_arm_sees_the_cases_of_its_size_and_no_pairs(spec, prepared):
    real = examples(spec("real", case_ids=("train_4", "train_1"), pairs=Path("/nowhere")), prepared)
    assert set(real.case_ids) == {"train_4", "train_1"}


def test_the_synthetic_arm_sees_the_first_pairs_and_no_real_case(spec, prepared):
    synthetic = examples(spec("synthetic", num_pairs=3), prepared)
    assert list(synthetic.case_ids) == ["syn_00000", "syn_00001", "syn_00002"]


def test_pairs_reach_the_segmenter_in_the_intensities_and_label_ids_of_the_real_cases(spec, prepared):
    synthetic = examples(spec("synthetic"), prepared)
    example = synthetic.open_case("syn_00000")
    assert example.image.dtype == np.float32
    assert set(np.unique(example.mask)) == {0, 1, 2}
    bright, dark = (float(example.image[example.mask == label].mean()) for label in (1, 2))
    # Written as 0 to 1000 scanner units and mapped back between its own percentiles, which lie within the noise.
    assert bright == pytest.approx(0.8, abs=0.15)
    assert dark == pytest.approx(-0.8, abs=0.15)


def test_both_are_mixed_by_the_configured_share(spec, prepared):
    both = examples(spec("real+synthetic", "usefulness.real_share=0.3", case_ids=TRAIN[:2]), prepared)
    assert both.first_share == 0.3
    assert set(both.first.case_ids) == set(TRAIN[:2])
    assert len(both.second.case_ids) == 4


def test_pairs_with_other_labels_are_refused(spec, prepared, write_pairs, tmp_path):
    other = write_pairs(tmp_path / "other", prepared.digest, 1, labels={0: "background", 3: "bright", 8: "grey"})
    with pytest.raises(DataError, match="labels"):
        run_trial(spec("synthetic", pairs=other), CPU, lambda: None)


def test_mean_dice_is_over_the_cases_that_have_the_label():
    rows = [np.array([0.5, np.nan, np.nan]), np.array([1.0, 0.25, np.nan])]
    assert mean_dice(rows, ("bone", "disc", "nerve")) == {"bone": 0.75, "disc": 0.25}


def test_a_trial_learns_what_it_is_shown_and_tells_every_step(spec):
    steps = []
    settings = ("training.segmenter.steps=60", "training.segmenter.learning_rate=0.01", "segmenter.zoom=0")
    trial = run_trial(spec("synthetic", *settings, "segmenter.rotation_degrees=0"), CPU, lambda: steps.append(1))
    assert len(steps) == 60
    assert (trial.arm, trial.num_cases, trial.seed) == ("synthetic", 6, 0)
    assert set(trial.dice) == {"bright", "dark"}
    assert trial.mean_dice > 0.8


def test_the_same_trial_gives_the_same_dice_and_another_seed_another(spec):
    one, again, other = (run_trial(spec("real", seed=seed), CPU, lambda: None).dice for seed in (0, 0, 1))
    assert one == again
    assert one != other
