import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medgen3d.evaluation.novelty import near_copies
from medgen3d.evaluation.training_preference import preference_metrics, win_share
from medgen3d.measures.fingerprints import describe_case, likeness

SHAPE = (24, 28, 26)
ANATOMY = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 4)
NUM_TRAIN, NUM_NEW = 30, 30


def volumes(seed):
    """A member of a population: an anatomy that all share, and half as much that is its own."""
    own = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    image = ANATOMY / ANATOMY.std() + 0.5 * own / own.std()
    return image.astype(np.float32), (image > 1).astype(np.uint8)


def described(image, mask):
    return describe_case(image, mask, None)


TRAIN = [described(*volumes(seed)) for seed in range(1, NUM_TRAIN + 1)]
HELD_OUT = [described(*volumes(seed)) for seed in range(100, 100 + NUM_NEW)]
OTHERS = [*TRAIN, *HELD_OUT]


@pytest.fixture(scope="module")
def of_held_out():
    return [likeness(each, OTHERS) for each in HELD_OUT]


def preference(cases, of_held_out):
    found = [likeness(described(*each), OTHERS) for each in cases]
    metrics = preference_metrics(found, of_held_out, NUM_TRAIN, np.random.default_rng(0))
    return {metric.name.removeprefix("novelty.nearer_to_training."): metric for metric in metrics}


def test_the_share_of_wins_is_over_all_draws_of_as_many_cases():
    # Of 4 training cases 1 is nearer than the nearest of 2 new ones: it is among 2 that are drawn in 3 of 6 draws.
    assert win_share(np.array([0.9, 0.1, 0.2, 0.3]), np.array([0.5, 0.4])) == pytest.approx(0.5)
    assert win_share(np.array([0.9, 0.8, 0.7]), np.array([0.5, 0.4])) == 1
    assert win_share(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.4])) == 0
    # Fewer training cases than new ones: of 3 new ones 1 is nearer, and one is drawn.
    assert win_share(np.array([0.6]), np.array([0.7, 0.1, 0.2])) == pytest.approx(2 / 3)


def test_new_cases_have_no_preference(of_held_out):
    found = preference([volumes(seed) for seed in range(300, 340)], of_held_out)
    for measure in ("image", "mask"):
        low, high = found[measure].interval
        assert low < 0.5 < high
        assert 0.3 < found[measure].floor < 0.7
        assert (found[measure].num, found[measure].num_of) == (40, "synthetic cases")


def test_cases_that_lean_towards_training_cases_are_seen_though_none_is_a_near_copy(of_held_out):
    def leaning(seed):
        image = 0.6 * volumes(seed)[0] + 0.4 * volumes(1 + seed % NUM_TRAIN)[0]
        return image, (image > 1).astype(np.uint8)

    cases = [leaning(seed) for seed in range(300, 340)]
    found = preference(cases, of_held_out)
    assert found["image"].value > 0.8
    assert found["image"].interval[0] > 0.55


def changed(seed):
    """Copies of a training case's image as they hide best: in noise, a little aside, mirrored, with another mask."""
    image, mask = volumes(1 + seed % NUM_TRAIN)
    kind, rng = seed % 4, np.random.default_rng(seed)
    if kind == 0:
        return image + 0.3 * rng.normal(size=SHAPE).astype(np.float32), mask
    if kind == 1:
        return np.roll(image, (1, -1, 1), (0, 1, 2)), np.roll(mask, (1, -1, 1), (0, 1, 2))
    if kind == 2:
        return image[:, :, ::-1].copy(), mask[:, :, ::-1].copy()
    return image, volumes(seed + 500)[1]


def test_of_planted_copies_95_percent_are_found_and_of_new_cases_at_most_1_percent_are_taken_for_copies():
    def closest(cases):
        return np.array([likeness(each, TRAIN).nearest(NUM_TRAIN).image_correlation for each in cases])

    of_new, of_copies = (
        closest([described(*volumes(seed)) for seed in range(1000, 1200)]),
        closest([described(*changed(seed)) for seed in range(60)]),
    )
    rng, found, alarms = np.random.default_rng(0), [], []
    for _ in range(200):  # which new cases set the threshold is chance
        known, unseen = np.split(rng.permutation(of_new), 2)
        found.append(near_copies(of_copies, known).mean())
        alarms.append(near_copies(unseen, known).mean())
    assert min(found) >= 0.95
    assert np.mean(alarms) <= 0.0125  # 1 %, and what 200 splits leave to chance


def test_a_single_held_out_case_gives_no_floor(of_held_out):
    (image, _) = preference_metrics(of_held_out[1:2], of_held_out[:1], NUM_TRAIN, np.random.default_rng(0))
    assert image.floor is None
