"""The suite: every section is made of every case, or says what it lacks; equal sets do not differ, wrong masks show."""

import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.goals import Goal, default_goals
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report_files import read_report
from medgen3d.artifacts.usefulness_results import UsefulnessResults
from medgen3d.core.errors import ArtifactError
from medgen3d.evaluation.case_measurements import Instruments
from medgen3d.evaluation.sets import open_sets
from medgen3d.evaluation.suite import TITLES, evaluate, missing


@dataclass(frozen=True)
class Threshold:
    """A judge that tells liver (50 HU) and spleen (90 HU) from background (0 HU) by intensity, in -200..300 HU."""

    name: str = "threshold"
    weights_sha256: str = "0" * 64

    def segment(self, image):
        return np.digitize(image, [-0.1, 0.08]).astype(np.uint16)

    def features(self, image):
        return np.stack([image[::2, ::4, ::4], image[1::2, 1::4, 1::4] ** 2])


STUDY = UsefulnessResults(
    dataset="abdomen",
    dataset_digest="d" * 64,
    phantom=False,
    labels=["liver", "spleen"],
    num_train=3,
    test_cases=["real_100"],
    seed=0,
    settings={"real_share": 0.5},
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make_prepared):
    """Real cases that all are the same."""
    return make_prepared(tmp_path_factory.mktemp("real") / "real", noise=0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, prepared, make_synthetic):
    """The report's folder and the report on synthetic cases that equal the real ones."""
    root = tmp_path_factory.mktemp("equal")
    synthetic = make_synthetic(root / "pairs", noise=0, dataset_digest=PreparedSet(prepared).digest)
    sets = open_sets(prepared, synthetic)
    return root, evaluate(sets, Instruments(judge=Threshold(), usefulness=STUDY), default_goals(), root / "out")


@pytest.fixture(scope="module")
def on_phantoms(tmp_path_factory, prepared, make_synthetic):
    """The report's folder and the report on phantoms, with a study that cannot be evaluated."""
    root = tmp_path_factory.mktemp("phantoms")
    sets = open_sets(prepared, make_synthetic(root / "pairs", phantom=True))
    broken = STUDY.model_copy(update={"settings": {}})
    return root, evaluate(sets, Instruments(usefulness=broken), default_goals(), root / "out")


@pytest.fixture(scope="module")
def real(tmp_path_factory, make_prepared):
    """Real cases that differ."""
    return make_prepared(tmp_path_factory.mktemp("noisy") / "real")


@pytest.fixture(scope="module")
def on_new_cases(tmp_path_factory, real, make_synthetic):
    """The sets of real cases and of synthetic ones that copy nothing, and the report on them."""
    root = tmp_path_factory.mktemp("new")
    sets = open_sets(real, make_synthetic(root / "pairs", range(300, 303), dataset_digest=PreparedSet(real).digest))
    return sets, evaluate(sets, Instruments(judge=Threshold()), default_goals(), root / "out")


def metrics(report):
    return {metric.name: metric for metric in report.metrics}


def test_every_section_is_there_in_order_and_has_been_run(evaluated):
    _, report = evaluated
    assert [section.name for section in report.sections] == list(TITLES)
    assert [section.title for section in report.sections] == list(TITLES.values())
    assert {section.name: section.not_run for section in report.sections if section.not_run} == {
        "usefulness": "no trial of the study has finished; go on with the same `medgen3d usefulness`"
    }


def test_equal_sets_have_distances_of_zero_and_no_gap(evaluated):
    found = metrics(evaluated[1])
    assert found["agreement.dice_gap"].value == 0
    assert found["agreement.dice.liver"].value == 1
    for name in ("plausibility.volume.liver", "plausibility.volume.spleen", "fidelity.intensity"):
        assert found[name].value == 0
    assert found["plausibility.components_difference.spleen"].value == 0
    for view in ("axial", "coronal", "sagittal"):
        assert found[f"fidelity.fid.{view}"].value == pytest.approx(0, abs=1e-4)
    through_plane = [metric.value for name, metric in found.items() if name.startswith("consistency.")]
    assert through_plane == pytest.approx([0] * 9, abs=1e-4)  # prepared images are stored as float16
    assert found["fidelity.ms_ssim"].value == pytest.approx(1)


def test_verdicts_are_those_of_the_goals(evaluated):
    verdicts = {verdict.metric: verdict.passed for verdict in evaluated[1].verdicts}
    assert verdicts["agreement.dice_gap"] is True
    assert verdicts["plausibility.volume.liver"] is True
    assert verdicts["usefulness.tstr_ratio"] is None
    assert not evaluated[1].passed


def test_the_files_are_there_and_name_the_pipeline(evaluated):
    root, report = evaluated
    assert read_report(root / "out") == report
    assert (report.pipeline.name, report.pipeline.version) == ("abdomen", 4)
    assert (report.real.num_cases, report.synthetic.num_cases, report.train.num_cases) == (4, 3, 3)
    assert "liver" in (root / "out" / "report.html").read_text()
    for name in report.pictures:
        Image.open(io.BytesIO((root / "out" / name).read_bytes())).verify()


def test_masks_that_do_not_fit_their_images_destroy_the_agreement_and_the_verdict(tmp_path, prepared, make_synthetic):
    """The liver of 5 x 5 voxels per slice is moved by 5: mask and image share none of it."""
    sets = open_sets(prepared, make_synthetic(tmp_path / "pairs", noise=0, shift=5))
    report = evaluate(sets, Instruments(judge=Threshold()), default_goals(), tmp_path / "out")
    assert metrics(report)["agreement.dice.liver"].value == 0
    assert metrics(report)["agreement.dice_gap"].value > 0.5
    assert next(verdict.passed for verdict in report.verdicts if verdict.metric == "agreement.dice_gap") is False


def test_what_is_missing_leaves_a_section_that_says_what_to_give_and_all_others_run(
    tmp_path, make_decathlon, make_synthetic
):
    sets = open_sets(make_decathlon(tmp_path / "real"), make_synthetic(tmp_path / "pairs"))
    report = evaluate(sets, Instruments(), [Goal(metric="novelty.near_copies", at_most=0.01)], tmp_path / "out")
    reasons = {section.name: section.not_run for section in report.sections if section.not_run}
    assert reasons == missing(sets, Instruments())
    assert "--segmenter" in reasons.pop("agreement")
    assert "--train" in reasons.pop("novelty")
    assert "--usefulness" in reasons.pop("usefulness")
    assert reasons == {}
    assert [verdict.passed for verdict in report.verdicts] == [None]
    assert report.train is None


def test_training_cases_that_the_pipeline_was_not_trained_on_say_nothing_of_novelty(prepared, tmp_path, make_synthetic):
    sets = open_sets(prepared, make_synthetic(tmp_path / "pairs"))  # its digest is "dddd..."
    assert "was trained on the prepared set with digest dddddddddddd" in missing(sets, Instruments())["novelty"]


def test_copies_of_training_cases_are_told_from_new_ones(tmp_path, real, on_new_cases, make_synthetic):
    digest = PreparedSet(real).digest
    copied = open_sets(real, make_synthetic(tmp_path / "copies", range(200, 203), dataset_digest=digest))
    copies = evaluate(copied, Instruments(), default_goals(), tmp_path / "out")
    assert metrics(copies)["novelty.near_copies_image"].value == 1
    assert metrics(on_new_cases[1])["novelty.near_copies_image"].value < 1


def test_the_same_sets_give_the_same_metrics(tmp_path, on_new_cases):
    sets, first = on_new_cases
    second = evaluate(sets, Instruments(judge=Threshold()), default_goals(), tmp_path / "out")
    assert second.model_copy(update={"created": first.created}) == first


def test_a_bad_case_is_named_before_anything_is_written(tmp_path, prepared, make_synthetic):
    synthetic = make_synthetic(tmp_path / "pairs")
    (synthetic / "images" / "syn_00001.nii.gz").write_bytes(b"")
    with pytest.raises(ArtifactError, match="syn_00001"):
        evaluate(open_sets(prepared, synthetic), Instruments(), default_goals(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_section_that_fails_does_not_take_the_others_with_it(on_phantoms):
    reasons = {section.name: section.not_run for section in on_phantoms[1].sections}
    assert reasons["usefulness"] == "It failed with KeyError: 'real_share'"
    assert reasons["plausibility"] == ""


def test_a_report_on_phantom_data_says_so(on_phantoms):
    root, report = on_phantoms
    assert report.phantom
    assert "PHANTOM DATA" in (root / "out" / "report.html").read_text()


def test_every_stage_of_a_pipeline_is_asked_which_cases_it_knows(
    tmp_path, make_prepared, make_synthetic, tiny_pipeline
):
    real = make_prepared(tmp_path / "real", test=range(100, 102), train=range(200, 202), plane=(16, 24))
    sets = open_sets(real, make_synthetic(tmp_path / "pairs", dataset_digest=PreparedSet(real).digest))
    stages = {stage: read_bundle(root).trained_stage() for stage, root in tiny_pipeline.items()}
    found = metrics(evaluate(sets, Instruments(stages=stages), default_goals(), tmp_path / "out"))
    for stage in stages:
        metric = found[f"novelty.membership.{stage}"]
        assert 0 <= metric.value <= 1
        assert metric.num == 2


def test_without_held_out_cases_of_the_same_plane_membership_is_not_measured(
    tmp_path, make_prepared, make_decathlon, make_synthetic, tiny_pipeline
):
    train = make_prepared(tmp_path / "train", plane=(16, 24))
    synthetic = make_synthetic(tmp_path / "pairs", dataset_digest=PreparedSet(train).digest)
    sets = open_sets(make_decathlon(tmp_path / "real"), synthetic, train)
    stages = {"refiner": read_bundle(tiny_pipeline["refiner"]).trained_stage()}
    found = metrics(evaluate(sets, Instruments(stages=stages), default_goals(), tmp_path / "out"))
    assert found["novelty.membership.refiner"].value is None
    assert "prepared sets with the same plane" in found["novelty.membership.refiner"].note
