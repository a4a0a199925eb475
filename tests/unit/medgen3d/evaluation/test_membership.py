import numpy as np
import pytest
import torch

from medgen3d.evaluation.membership import membership_auc, membership_metric, membership_scores
from medgen3d_stages.arrays import Example
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.chain import TrainedStage
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig

SPEC = DataSpec(num_labels=2, plane=(8, 8), spacing_mm=(1.0, 1.0, 1.0), max_depth=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def example(seed):
    """Blocks of labels that follow no rule: another case tells nothing of this one."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, size=(4, 4, 4)).repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    return Example(image=rng.uniform(-1, 1, size=mask.shape).astype(np.float32), mask=mask, box=(0, 8, 0, 8))


def built(name, config):
    torch.manual_seed(0)
    stage = make_stage(name, config, SPEC)
    networks = stage.build()
    return TrainedStage(stage, {part: networks[part] for part in stage.sampled})


@pytest.fixture
def mask_generator():
    config = MaskGeneratorConfig(
        window=4, overlap=1, channels=(16,), attention_levels=(False,), diffusion_steps=30, sampling_steps=3
    )
    return built("mask_generator", config)


def over_fit(trained, examples, steps):
    network = trained.networks["denoiser"].train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(steps):
        cuts = [trained.stage.cut(each, rng) for each in examples for _ in range(2)]
        batch = {name: torch.stack([cut[name] for cut in cuts]) for name in cuts[0]}
        optimiser.zero_grad()
        trained.stage.loss("denoiser", trained.networks, batch, generator, 0.0)["total"].backward()
        optimiser.step()


def auc(trained, known, new):
    scores = [[membership_scores(trained, each, seed=5) for each in cases] for cases in (known, new)]
    return membership_auc(*scores, np.random.default_rng(0)).auc


def test_an_over_fitted_stage_gives_its_training_cases_away(mask_generator):
    known, new = [example(seed) for seed in range(4)], [example(seed) for seed in range(100, 104)]
    over_fit(mask_generator, known, steps=60)

    assert auc(mask_generator, known, new) > 0.8


def test_a_stage_that_has_seen_nothing_cannot_tell_cases_apart(mask_generator):
    known, new = ([example(seed) for seed in range(first, first + 16)] for first in (0, 100))
    assert 0.25 < auc(mask_generator, known, new) < 0.75


def test_the_score_of_a_case_is_the_same_every_time_and_does_not_change_the_stage(mask_generator):
    before = {name: value.clone() for name, value in mask_generator.networks["denoiser"].state_dict().items()}
    scores = {membership_scores(mask_generator, example(0), seed=5) for _ in range(2)}

    assert len(scores) == 1
    for name, value in mask_generator.networks["denoiser"].state_dict().items():
        assert torch.equal(value, before[name])


def test_a_stage_without_its_critics_is_judged_by_how_close_its_samples_come():
    trained = built(
        "image_sequence_generator",
        ImageSequenceGeneratorConfig(style=4, channels=(8, 16), spade_channels=4, discriminator_channels=4),
    )
    case = example(0)
    drawn, _ = trained.stage.preview(trained.networks, case, torch.Generator().manual_seed(5))
    remembered = Example(image=drawn, mask=case.mask, box=case.box)
    off_by_a_tenth = Example(image=drawn + np.float32(0.1), mask=case.mask, box=case.box)

    assert membership_scores(trained, remembered, seed=5) == pytest.approx(0, abs=1e-6)
    assert -0.1 - 1e-6 <= membership_scores(trained, off_by_a_tenth, seed=5) < 0


def test_scores_alike_give_one_half_and_separated_ones_1():
    rng = np.random.default_rng(0)
    assert membership_auc([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], rng).auc == 0.5
    assert membership_auc([4.0, 5.0], [1.0, 2.0, 3.0], rng) == (1, 1, 1)
    assert membership_auc([1.0], [2.0], rng).auc == 0


def test_ties_count_half():
    # 1 against 1 is a tie; 1 against 0, 2 against 1 and 2 against 0 are right
    assert membership_auc([1.0, 2.0], [1.0, 0.0], np.random.default_rng(0)).auc == 3.5 / 4


def test_the_interval_holds_the_area_and_narrows_with_more_cases():
    def found(num_cases):
        rng = np.random.default_rng(0)
        return membership_auc(rng.normal(0.5, 1, num_cases).tolist(), rng.normal(0, 1, num_cases).tolist(), rng)

    few, many = found(10), found(200)
    assert few.low <= few.auc <= few.high
    assert many.high - many.low < few.high - few.low


def test_the_metric_is_named_after_the_stage_and_counts_the_cases():
    metric = membership_metric("mask_generator", [2.0, 3.0], [1.0], np.random.default_rng(0))
    assert (metric.name, metric.value, metric.num) == ("novelty.membership.mask_generator", 1, 2)
    assert metric.num_of == "training cases, 1 held out"
