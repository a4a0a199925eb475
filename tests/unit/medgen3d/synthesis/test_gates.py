from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from medgen3d.artifacts.bundle import BundleInfo, read_bundle, write_bundle
from medgen3d.artifacts.bundle_weights import named_weights
from medgen3d.measures.fingerprints import describe_case
from medgen3d.measures.limits import CaseLimits, LabelLimits, NearCopyLimits
from medgen3d.synthesis.batch_codec import begin
from medgen3d.synthesis.gates import GateRules, Gates
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.stage import Segmenter


@pytest.fixture(scope="module")
def dataset(tiny_pipeline):
    return read_bundle(tiny_pipeline["refiner"]).info.dataset  # bone 7 and cartilage 300; a voxel is 0.001125 ml


@pytest.fixture
def case(tiny_pipeline):
    from medgen3d.artifacts.planned_case import plan_case

    drawn = begin([plan_case(0, 0, [(8, 12, 20, 1)])])[0]
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 12, 20), np.uint8)
    mask[2:6, 2:10, 2:18] = 1
    return replace(drawn, mask=mask, image=rng.normal(0, 0.3, mask.shape).astype(np.float32))


def limits(num_voxels=(500, 520), near_copy=None):
    volume_ml = tuple(number * 0.001125 for number in num_voxels)
    bone = LabelLimits(always_present=True, volume_ml=volume_ml, num_components=1, num_holes=0)
    return CaseLimits(num_cases=9, labels={7: bone}, near_copy=near_copy)


def judged(case, dataset, rules, train=()):
    return Gates(rules, dataset, list(train)).judge(case)


def test_gates_that_have_no_limits_do_not_run(case, dataset):
    assert judged(case, dataset, GateRules()) == case
    assert GateRules().digests == {}
    assert GateRules(limits=limits()).digests.keys() == {"limits"}


def test_a_mask_within_limits_passes_and_another_is_rejected_with_its_reasons(case, dataset):
    good = judged(case, dataset, GateRules(limits=limits()))  # 4 * 8 * 16 = 512 voxels
    bad = judged(case, dataset, GateRules(limits=limits((100, 200))))

    assert good.is_sound
    assert good.scores == {"limits": 1.0}
    assert list(bad.rejections) == ["volume"]
    assert bad.rejections["volume"].startswith("bone has 0.576 ml, expected 0.09 to 0.281")  # 512, 80 and 250 voxels
    assert bad.scores == {"limits": 0.0}


def test_the_mask_that_a_user_gave_is_not_judged(case, dataset):
    own = replace(case, plan=case.plan.model_copy(update={"mask": "mine.nii.gz"}))
    assert judged(own, dataset, GateRules(limits=limits((1, 2)))).is_sound


def test_a_case_that_is_rejected_already_is_left_alone(case, dataset):
    rejected = case.rejected("targets", "none met")
    assert judged(rejected, dataset, GateRules(limits=limits((1, 2)))) == rejected


@pytest.mark.parametrize(
    ("image_limit", "mask_limit", "is_copy"), [(0.99, 0.99, True), (1.1, 0.99, False), (0.99, 1.1, True)]
)
def test_a_near_copy_is_beyond_the_limit_of_images_whatever_its_mask(
    case, dataset, image_limit, mask_limit, is_copy, tmp_path
):
    near = NearCopyLimits(image_correlation=image_limit, mask_dice=mask_limit, num_held_out=5)
    rules = GateRules(limits=limits(near_copy=near), train=object())
    known = describe_case(np.flip(case.image, 2).copy(), np.flip(case.mask, 2).copy())  # as a mirror image
    found = judged(case, dataset, rules, [known])

    assert found.scores["near copy, image"] == pytest.approx(1, abs=1e-4)
    assert found.scores["near copy, mask"] == pytest.approx(1, abs=1e-3)
    assert list(found.rejections) == ["near copy"] * is_copy


@pytest.fixture(scope="module")
def sees_bone_everywhere(tiny_pipeline, tmp_path_factory):
    """A segmenter that gives every voxel the first label."""
    known = read_bundle(tiny_pipeline["refiner"])
    config = SegmenterConfig(channels=8, num_res_blocks=(1, 1), patch=(8, 16, 16))
    networks = Segmenter(config, DataSpec(**known.info.spec)).build()
    last = networks["segmenter"].conv_final[-1].conv
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 1.0, 0.5])
    info = BundleInfo(stage="segmenter", stage_config=asdict(config), spec=known.info.spec, dataset=known.info.dataset)
    root = tmp_path_factory.mktemp("segmenter") / "bundle"
    write_bundle(root, info, named_weights(networks), known.provenance, preview_png=None)
    return read_bundle(root)


@pytest.mark.parametrize(
    ("num_cartilage", "score", "is_aligned"),
    [
        (0, 1.0, True),
        (2, 3 / 7, True),
        (4, 1 / 3, False),
    ],  # of eight slices: Dice 2 * 6 / (8 + 6) and 0; 2 * 4 / 12 and 0
)
def test_a_pair_whose_mask_the_segmenter_does_not_see_in_the_image_is_rejected(
    num_cartilage, score, is_aligned, case, dataset, sees_bone_everywhere
):
    mask = np.ones_like(case.mask)
    mask[:num_cartilage] = 2
    rules = GateRules(segmenter=sees_bone_everywhere, min_alignment=0.4)
    found = judged(replace(case, mask=mask), dataset, rules)

    assert found.scores["alignment"] == pytest.approx(score)
    reasons = (
        {} if is_aligned else {"alignment": "the segmenter finds the mask in the image with Dice 0.33, expected 0.4"}
    )
    assert found.rejections == reasons


def test_another_segmenter_or_threshold_is_another_gate(sees_bone_everywhere):
    strict = GateRules(segmenter=sees_bone_everywhere, min_alignment=0.5)
    assert GateRules(segmenter=sees_bone_everywhere, min_alignment=0.4).digests != strict.digests
    assert strict.digests.keys() == {"alignment"}
