import io

import numpy as np
import pytest
from PIL import Image

from medgen3d.evaluation.extractors import VIEWS
from medgen3d.evaluation.fidelity import CaseFidelity, ExtractorIdentity, fidelity, measure_fidelity

JUDGE = ExtractorIdentity("judge of abdomen", "a" * 64)
PRETRAINED = ExtractorIdentity("medicalnet-resnet10", "b" * 64)


class Brightness:
    """Describes a slice by its mean intensity and its spread."""

    name, weights_sha256 = JUDGE

    def features(self, image):
        def of_slices(axis):
            slices = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
            return np.stack([slices.mean(axis=1), slices.std(axis=1)], axis=1).astype(np.float32)

        return {view: of_slices(axis) for axis, view in enumerate(VIEWS)}


def images(num_cases, seed, brightness=0.0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(rng.normal(0, 0.1, size=num_cases)[:, None, None, None], 0.2, size=(num_cases, 8, 9, 10))
    return np.clip(noise + brightness, -1, 1).astype(np.float32)


BRIGHTNESS = Brightness()


def measured(volumes, extractors=(BRIGHTNESS,)):
    return [measure_fidelity(image, extractors) for image in volumes]


def found(real, synthetic, identities=(JUDGE,)):
    return fidelity(real, synthetic, identities, np.random.default_rng(0))


def metrics(findings):
    return {metric.name.removeprefix("fidelity."): metric for metric in findings.section.metrics}


def test_every_view_has_its_distances_of_each_extractor():
    real, synthetic = (measured(images(count, seed), (BRIGHTNESS, BRIGHTNESS)) for count, seed in ((8, 0), (4, 1)))
    of_one = {f"{measure}.{view}" for measure in ("fid", "kid") for view in ("axial", "coronal", "sagittal")}
    of_other = {name.replace(".", "_pretrained.") for name in of_one}
    findings = found(real, synthetic, (JUDGE, PRETRAINED))

    assert metrics(findings).keys() == of_one | of_other | {"ms_ssim", "intensity"}
    assert all(metric.num == 4 for name, metric in metrics(findings).items() if name != "ms_ssim")
    for identity in (JUDGE, PRETRAINED):
        assert f"{identity.name} (weights SHA-256 {identity.weights_sha256})" in findings.section.about


def test_a_pretrained_extractor_alone_is_not_taken_for_the_judge():
    names = metrics(found(measured(images(8, 0)), measured(images(4, 1)), (PRETRAINED,))).keys()
    assert "fid_pretrained.axial" in names
    assert "fid.axial" not in names


def test_without_an_extractor_images_are_still_compared_by_intensity_and_diversity():
    real, synthetic = measured(images(8, 0), ()), measured(images(4, 1), ())
    assert metrics(found(real, synthetic, ())).keys() == {"ms_ssim", "intensity"}


def test_images_drawn_like_the_real_ones_lie_at_the_floor_and_brighter_ones_far_above():
    real = measured(images(40, 0))
    alike = metrics(found(real, measured(images(20, 1))))
    brighter = metrics(found(real, measured(images(20, 2, brightness=0.4))))

    for view in ("axial", "coronal", "sagittal"):
        assert 0.3 < alike[f"fid.{view}"].ratio < 3
        assert brighter[f"fid.{view}"].ratio > 10
        assert abs(alike[f"kid.{view}"].value) < 0.02 < brighter[f"kid.{view}"].value


def test_adding_to_a_feature_adds_the_square_of_it_to_the_fid():
    real = measured(images(6, 0))
    added = [
        CaseFidelity(({view: each + np.array([0.3, 0]) for view, each in case.features[0].items()},), *case[1:])
        for case in real
    ]

    metric = metrics(found(real, added))["fid.axial"]
    assert metric.value == pytest.approx(0.09 + metric.floor, rel=0.7)  # other cases on each side: close, not equal
    assert metric.interval[0] <= metric.value <= metric.interval[1]


def test_a_set_of_one_image_over_and_over_is_less_varied_than_the_real_one():
    metric = metrics(found(measured(images(8, 0)), measured(images(1, 1).repeat(5, axis=0))))["ms_ssim"]

    assert metric.value == pytest.approx(1, abs=1e-5)
    assert metric.floor < 0.9
    assert metric.num == 10  # pairs of 5
    assert "less varied" in metric.note


def test_too_few_cases_give_a_reason_instead_of_a_number():
    few = metrics(found(measured(images(3, 0)), measured(images(1, 1))))

    assert few["fid.axial"].value is None
    assert few["kid.sagittal"].note == "It needs 4 real and 2 synthetic cases."
    assert few["ms_ssim"].value is None
    assert few["intensity"].value > 0


def test_the_same_cases_give_the_same_findings_and_a_picture_that_can_be_read():
    real, synthetic = measured(images(8, 0)), measured(images(4, 1))
    findings = found(real, synthetic)

    assert found(real, synthetic) == findings
    assert {picture.file for picture in findings.section.pictures} == findings.pictures.keys()
    for png in findings.pictures.values():
        Image.open(io.BytesIO(png)).verify()
