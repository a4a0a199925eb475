"""Promotion: a report about this very version, on which every goal is met, makes a champion; or force, on record."""

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from medgen3d.artifacts.report import EvaluatedPipeline, Report, SetDescription, Verdict
from medgen3d.core.errors import RegistryError
from medgen3d.registry.pipeline import create_pipeline, describe, list_pipelines, resolve_pipeline
from medgen3d.registry.promotion import promote, promotion_note
from medgen3d.registry.tracking import Tracking


@pytest.fixture
def tracking(stocked_tracking) -> Tracking:
    """A registry with the pipeline toy in version 1."""
    create_pipeline(stocked_tracking, "toy")
    return stocked_tracking


@pytest.fixture
def report_on(tracking):
    """report_on(version, outcomes by metric, **fields of the evaluated pipeline)."""

    def make(version=1, outcomes=None, **changes) -> Report:
        pinned = describe(tracking, "toy@1").info.stages
        pipeline = {
            "name": "toy",
            "version": version,
            "weights_sha256": {stage: bundle.weights_sha256 for stage, bundle in pinned.items()},
            "config_hash": "c" * 64,
            "dataset_digest": "d" * 64,
        }
        real = SetDescription(name="toy", num_cases=2, phantom=True, facts={})
        values = {True: 0.5, False: 2.5, None: None}
        return Report(
            created=datetime(2020, 2, 3, tzinfo=UTC),
            code_version="1",
            spacing_mm=(2, 1, 1),
            real=real,
            synthetic=real,
            train=None,
            pipeline=EvaluatedPipeline.model_validate(pipeline | changes),
            verdicts=[
                Verdict(
                    metric=name, goal=f"{name}: at most 1", value=values[passed], floor=None, ratio=None, passed=passed
                )
                for name, passed in ({"a.gap": True} if outcomes is None else outcomes).items()
            ],
            sections=[],
        )

    return make


def stored_report(tracking, number) -> dict | None:
    """What lies with the run that made the version."""
    run_id = describe(tracking, f"toy@{number}").version.run_id
    path = Path(urlsplit(tracking.client().get_run(run_id).info.artifact_uri).path) / "report.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_a_version_whose_report_passed_becomes_the_champion_and_the_report_stays_with_it(tracking, report_on):
    report = report_on()
    promoted = promote(tracking, "toy", report)
    assert promoted.aliases == ("candidate", "champion")
    assert promotion_note(promoted) == "passed"
    assert stored_report(tracking, 1) == report.model_dump(mode="json", by_alias=True)
    assert resolve_pipeline(tracking, "toy@champion").version == 1


def test_a_name_alone_means_the_candidate_and_the_title_moves(tracking, report_on):
    promote(tracking, "toy", report_on())
    create_pipeline(tracking, "toy")
    assert promote(tracking, "toy", report_on(version=2)).number == 2
    assert [version.aliases for version in list_pipelines(tracking)["toy"]] == [(), ("candidate", "champion")]


FAILING = {"a.gap": False, "b.copies": None, "c.volume": True}
REFUSED = [
    (None, "there is no report; write one with `medgen3d evaluate` and give it with --report"),
    ({"version": 2}, "the report is about toy@2"),
    ({"name": "brain"}, "the report is about brain@1"),
    ({"weights_sha256": {}}, "the report is about a mask_generator with the weights none"),
    ({"as_pinned": False}, "were drawn with other sampling options, for given masks or without the refiner"),
    ({"outcomes": FAILING}, r"the report misses a\.gap \(found 2\.5\); b\.copies \(not measured\)\. With --force"),
    ({"outcomes": {}}, "the report judges no goal"),
]


@pytest.mark.parametrize(("fields", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_a_report_that_does_not_speak_for_the_version_is_refused_and_nothing_changes(
    tracking, report_on, fields, sentence
):
    before = describe(tracking, "toy@1")
    with pytest.raises(RegistryError, match=f"toy.pipeline version 1 is not promoted: .*{sentence}"):
        promote(tracking, "toy", None if fields is None else report_on(**fields))
    assert describe(tracking, "toy@1") == before
    assert stored_report(tracking, 1) is None


def test_weights_that_are_not_those_that_are_pinned_are_named(tracking, report_on):
    others = dict.fromkeys(("mask_generator", "image_sequence_generator", "refiner"), "e" * 64)
    with pytest.raises(
        RegistryError, match=r"a mask_generator with the weights eeeeeeeeeeee\.\.\., pinned are [0-9a-f]{12}"
    ):
        promote(tracking, "toy", report_on(weights_sha256=others))


def test_a_long_list_of_missed_goals_is_cut(tracking, report_on):
    outcomes = {f"a.label_{number}": False for number in range(8)}
    with pytest.raises(RegistryError, match=r"a\.label_4 \(found 2\.5\); 3 more\. With"):
        promote(tracking, "toy", report_on(outcomes=outcomes))


def test_force_promotes_without_a_report_and_the_registry_says_so(tracking):
    promoted = promote(tracking, "toy", None, force=True)
    assert "champion" in promoted.aliases
    assert promoted.tags["forced"] == "true"
    assert (
        promotion_note(promoted)
        == "forced: there is no report; write one with `medgen3d evaluate` and give it with --report"
    )


def test_force_promotes_against_a_failed_report_which_is_kept_with_the_goals_that_are_missed(tracking, report_on):
    report = report_on(outcomes=FAILING)
    promoted = promote(tracking, "toy", report, force=True)
    assert (promoted.tags["report"], promoted.tags["forced"]) == ("failed", "true")
    assert "a.gap (found 2.5); b.copies (not measured)" in promoted.tags["forced_because"]
    assert stored_report(tracking, 1) == report.model_dump(mode="json", by_alias=True)


def test_a_forced_promotion_keeps_no_report_that_is_about_something_else(tracking, report_on):
    promoted = promote(tracking, "toy", report_on(version=2), force=True)
    assert "report" not in promoted.tags
    assert promoted.tags["forced_because"] == "the report is about toy@2"
    assert stored_report(tracking, 1) is None


def test_force_that_was_not_needed_is_not_recorded(tracking, report_on):
    assert promotion_note(promote(tracking, "toy", report_on(), force=True)) == "passed"


def test_a_version_that_was_forced_and_passes_later_is_no_longer_called_forced(tracking, report_on):
    promote(tracking, "toy", None, force=True)
    assert promotion_note(promote(tracking, "toy", report_on())) == "passed"


def test_a_version_whose_report_passed_before_is_promoted_again_without_one(tracking, report_on):
    promote(tracking, "toy@1", report_on())
    create_pipeline(tracking, "toy")
    promote(tracking, "toy@2", None, force=True)
    assert promote(tracking, "toy@1", None).aliases == ("champion",)


def test_there_is_nothing_to_say_of_a_version_that_was_never_promoted(tracking):
    assert promotion_note(describe(tracking, "toy@1").version) == ""
