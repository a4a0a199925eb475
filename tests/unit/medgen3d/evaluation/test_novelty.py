import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.labels import LabelTable
from medgen3d.evaluation.novelty import near_copies, novelty, threshold
from medgen3d.evaluation.sets import LabelledSet
from medgen3d.measures.fingerprints import describe_case, nearest

LABELS = LabelTable.from_mapping({0: "background", 3: "liver"})
MEMBERSHIP = Metric(name="novelty.membership.refiner", title="Membership", value=0.5, num=4, num_of="cases")


def case(seed):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=(20, 26, 23)), 2.5)
    image /= np.abs(image).max()
    return image.astype(np.float32), (image > np.quantile(image, 0.7)).astype(np.uint8)


def labelled(name, cases):
    by_id = {f"{name}_{number}": each for number, each in enumerate(cases)}
    return LabelledSet(
        name=name,
        phantom=name == "phantom",
        labels=LABELS,
        spacing_mm=(1.0, 1.0, 1.0),
        case_ids=list(by_id),
        read=by_id.__getitem__,
        facts={},
    )


TRAIN_CASES = [case(seed) for seed in range(8)]
TRAIN = labelled("train", TRAIN_CASES)
FINGERPRINTS = [describe_case(*each, None) for each in TRAIN_CASES]
HELD_OUT = [nearest(describe_case(*case(seed), None), FINGERPRINTS) for seed in range(100, 112)]


def judged(cases, membership=()):
    found = [nearest(describe_case(*each, None), FINGERPRINTS) for each in cases]
    return novelty(found, HELD_OUT, labelled("syn", cases), TRAIN, membership)


def metrics(cases):
    return {metric.name.removeprefix("novelty."): metric for metric in judged(cases).section.metrics}


def flipped(each):
    return tuple(volume[:, ::-1].copy() for volume in each)


def shifted(each):
    return tuple(volume[1:] for volume in each)


def noisy(each):
    image, mask = each
    return image + 0.1 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32), mask


@pytest.mark.parametrize("change", [tuple, flipped, shifted, noisy])
def test_a_copied_training_case_is_a_near_copy_and_the_new_ones_are_not(change):
    findings = judged([case(200), case(201), change(TRAIN_CASES[3]), case(202)])

    assert findings.section.metrics[0].name == "novelty.near_copies"
    assert findings.section.metrics[0].value == 0.25
    assert findings.section.tables[1].rows[0][:2] == ["syn_2", "train_3"]


def test_a_new_image_for_a_copied_mask_is_no_near_copy_but_its_mask_is_one():
    found = metrics([(case(200)[0], TRAIN_CASES[3][1]), case(201)])

    assert found["near_copies_mask"].value == 0.5
    assert found["near_copies_image"].value == 0
    assert found["near_copies"].value == 0


def test_the_closest_match_is_named_first_and_shown():
    findings = judged([case(200), case(201), flipped(TRAIN_CASES[5])])
    table = next(each for each in findings.section.tables if each.title == "The closest matches")

    assert table.rows[0][:2] == ["syn_2", "train_5"]
    assert table.rows[0][2] == pytest.approx(1)
    assert table.rows[0][3] == "train_5"
    assert {picture.file for picture in findings.section.pictures} == findings.pictures.keys()
    for png in findings.pictures.values():
        Image.open(io.BytesIO(png)).verify()


def test_shares_come_with_the_interval_of_wilson_and_the_share_among_held_out_cases():
    share = metrics([case(seed) for seed in range(200, 210)])["near_copies_image"]

    assert share.value == 0
    assert share.interval == pytest.approx((0, 0.2775), abs=1e-4)  # z^2 / (n + z^2) with z = 1.96, n = 10
    assert share.floor == pytest.approx(1 / 12)  # the most similar of the 12 exceeds all others
    assert share.num == 10


def test_feature_distances_count_where_there_is_a_judge_and_the_smaller_are_the_closer():
    def found(*distances):
        return [HELD_OUT[0]._replace(embedding_distance=distance) for distance in distances]

    def shares(held_out):
        findings = novelty(found(1.0, 3.0), held_out, labelled("syn", [case(1), case(2)]), TRAIN, ())
        return {metric.name: metric.value for metric in findings.section.metrics}

    assert shares(found(2.0, 2.5))["novelty.near_copies_embedding"] == 0.5
    assert "novelty.near_copies_embedding" not in shares(HELD_OUT)


def test_membership_metrics_stand_beside_the_near_copies():
    assert MEMBERSHIP in judged([case(200)], [MEMBERSHIP]).section.metrics


def test_a_single_held_out_case_gives_no_floor():
    found = novelty(HELD_OUT[:1], HELD_OUT[1:2], labelled("phantom", [case(200)]), TRAIN, ())
    assert found.section.metrics[0].floor is None


def test_the_threshold_is_the_99th_percentile_of_many_and_the_largest_of_few():
    assert threshold(np.arange(1.0, 200.0)) == pytest.approx(198)  # the 198th of 199: 0.99 * (199 + 1)
    assert threshold(np.arange(40.0)) == 39


def test_one_new_case_in_a_hundred_counts_as_a_near_copy_by_a_single_measure():
    rng = np.random.default_rng(0)
    flags = [near_copies(rng.normal(size=1), rng.normal(size=99))[0] for _ in range(3000)]
    assert np.mean(flags) == pytest.approx(0.01, abs=0.005)  # its standard error is 0.0018
