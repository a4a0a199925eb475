"""Promotion: a version of a pipeline becomes the champion when a report says that it meets its goals.

The report stays with the run that made the version. Tags of the version say `report` (passed or failed) and, where the
report did not count, `forced` and `forced_because`.
"""

import tempfile
from pathlib import Path

from medgen3d.artifacts.report import Report, Verdict
from medgen3d.artifacts.versioned_json import write_versioned
from medgen3d.core.errors import RegistryError
from medgen3d.registry.pipeline import CANDIDATE, CHAMPION, PipelineVersion, find_pipeline
from medgen3d.registry.tracking import RunLog, Tracking
from medgen3d.registry.versions import Version, find_version, set_alias, set_tags

REPORT, FORCED, FORCED_BECAUSE = "report", "forced", "forced_because"
PASSED, FAILED = "passed", "failed"
_NUM_CITED = 5


def promote(tracking: Tracking, reference: str, report: Report | None, *, force: bool = False) -> Version:
    """Make a version the champion: `NAME` (its candidate), `NAME@3` or `NAME@alias`.

    Args:
        tracking: Where.
        reference: Which version.
        report: Of an evaluation of this version; None where the registry holds one that passed already.
        force: Promote it whatever the report says, and record that.

    Raises:
        RegistryError: There is no such version; or, without `force`, the report is missing, is about something else
            or names goals that are not met.
    """
    pipeline = find_pipeline(tracking, reference, CANDIDATE)
    version = pipeline.version
    about_another = report and _about_another(pipeline, report)
    objection = about_another or _objection(version, report)
    if objection and not force:
        raise RegistryError(f"{version} is not promoted: {objection}. With --force it is, and the registry says so.")
    if report and not about_another:
        _keep(tracking, version, report)
    set_tags(tracking, version, {FORCED: "true", FORCED_BECAUSE: objection} if objection else {FORCED: "false"})
    set_alias(tracking, version, CHAMPION)
    return find_version(tracking, version.model, str(version.number))


def promotion_note(version: Version) -> str:
    """A few words about the report of a version, and whether it was forced; empty if the registry has none."""
    verdict = version.tags.get(REPORT, "")
    if version.tags.get(FORCED) != "true":
        return verdict
    return f"{verdict}{', ' if verdict else ''}forced: {version.tags.get(FORCED_BECAUSE, '')}"


def _about_another(pipeline: PipelineVersion, report: Report) -> str:
    """Why the report does not tell of this version; empty if it does."""
    found, name = report.pipeline, pipeline.info.dataset
    if (found.name, found.version) != (name, pipeline.version.number):
        return f"the report is about {found.name}@{found.version}"
    if not found.as_pinned:
        return "the report's pairs were drawn with other sampling options, for given masks or without the refiner"
    for stage, bundle in pipeline.info.stages.items():
        used, pinned = found.weights_sha256.get(stage, "none"), bundle.weights_sha256
        if used != pinned:
            return f"the report is about a {stage} with the weights {used[:12]}..., pinned are {pinned[:12]}..."
    return ""


def _objection(version: Version, report: Report | None) -> str:
    """Why the version should not be promoted; empty if it should."""
    if report is None:
        is_known = version.tags.get(REPORT) == PASSED
        return "" if is_known else "there is no report; write one with `medgen3d evaluate` and give it with --report"
    if report.passed:
        return ""
    missed = [verdict for verdict in report.verdicts if not verdict.passed]
    cited = [*map(_missed, missed[:_NUM_CITED]), *([f"{len(missed) - _NUM_CITED} more"] * (len(missed) > _NUM_CITED))]
    return f"the report misses {'; '.join(cited)}" if missed else "the report judges no goal"


def _missed(verdict: Verdict) -> str:
    found = "not measured" if verdict.passed is None else f"found {verdict.value:.3g}"
    return f"{verdict.metric} ({found})"


def _keep(tracking: Tracking, version: Version, report: Report) -> None:
    """Store the report with the run that made the version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        write_versioned(path, report)
        RunLog(tracking.uri, version.run_id).artifact(path)
    set_tags(tracking, version, {REPORT: PASSED if report.passed else FAILED})
