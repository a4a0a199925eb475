"""Ingest on Ray Data: one row per case to verify, one row per case to prepare.

Parts are fixed by the plan and written whole, so that the result does not depend on how many workers there are, and an
interrupted run goes on with the cases that are missing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from medgen3d.artifacts.prepared_set import DatasetInfo, case_path, write_info, write_licence, write_prepared_case
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import DataError
from medgen3d.core.outcome import Outcome
from medgen3d.ingest import output_folder
from medgen3d.ingest.grid_survey import GridSurvey, changes_grid, problem_of, survey, unchanged, with_losses
from medgen3d.ingest.plan import IngestPlan, make_ingest_plan
from medgen3d.ingest.prepare import prepare
from medgen3d.ingest.problems import CaseProblem
from medgen3d.ingest.request import IngestRequest, make_request
from medgen3d.ingest.sources import read_source
from medgen3d.ingest.verify import Verification, verify

Progress = Callable[[str, int, int], None]
Row = dict[str, Any]


def _silent(phase: str, done: int, total: int) -> None:
    """Report nothing."""


def ingest(
    source: Path,
    out: Path,
    config: IngestConfig,
    *,
    seed: int,
    name: str | None = None,
    image_name: str = "image.nii.gz",
    mask_name: str = "mask.nii.gz",
    labels_file: Path | None = None,
    patient_regex: str | None = None,
    patients_csv: Path | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    num_workers: int | None = None,
    progress: Progress = _silent,
) -> DatasetInfo:
    """Turn a folder of labelled volumes into a prepared set. Needs a running Ray.

    Args:
        source: A folder in one of the layouts of `sources`.
        out: Folder of the prepared set; on a cluster, on storage that every machine sees. An interrupted run with the
            same plan is continued.
        config: Modality, voxel size, plane, intensities, split.
        seed: Of the split.
        name: Of the data set; by default as `dataset.json` says, or the folder's name.
        image_name: Name of the image within a case folder.
        mask_name: Name of the mask within a case folder.
        labels_file: JSON {id: name}.
        patient_regex: Finds the patient in a case's name.
        patients_csv: Columns case, patient.
        skip_bad: Leave bad cases out, and list them in `DatasetInfo.skipped`.
        overwrite: Replace a different prepared set.
        dry_run: Verify, and write nothing.
        num_workers: Most cases worked on at a time; None: as many as Ray has CPUs for.
        progress: Called with "verify", "survey" (cases that the training grid changes) or "prepare", cases done, all
            cases.

    Returns:
        What was, or would be, written as `dataset.yaml`.

    Raises:
        BadCasesError: There are problems with cases; it carries all of them.
        DataError: The source, a file of choices or the output folder cannot be used.
        ConfigError: A choice is missing or not valid.
    """
    source, out = source.absolute(), out.absolute()  # workers run in folders of their own
    output_folder.refuse_foreign(out)
    found = read_source(source, image_name=image_name, mask_name=mask_name)
    request = make_request(
        found,
        config,
        name=name,
        seed=seed,
        labels_file=labels_file,
        patient_regex=patient_regex,
        patients_csv=patients_csv,
    )
    plan = _plan(request, num_workers, progress, skip_bad=skip_bad)
    if not overwrite:
        output_folder.refuse_other(out, plan)
    if not dry_run:
        _prepare_all(out, plan, num_workers, progress)
        write_licence(out, found.licence)
        write_info(out, plan.info)
    return plan.info


def _plan(request: IngestRequest, num_workers: int | None, progress: Progress, *, skip_bad: bool) -> IngestPlan:
    """Cases of which the grid leaves nothing are left out of the next plan, whose grid may be another one."""
    verifications = _verify_all(request, num_workers, progress)
    lost: list[CaseProblem] = []
    while True:
        plan = make_ingest_plan(request, verifications, lost, skip_bad=skip_bad)
        surveys = _survey_all(plan, verifications, num_workers, progress)
        found = [problem_of(each, plan.info.spacing_mm, plan.info.plane) for each in surveys]
        if not any(found):
            return with_losses(plan, surveys)
        lost += filter(None, found)


def _verify_all(request: IngestRequest, num_workers: int | None, progress: Progress) -> list[Verification]:
    pairs, root, rules = request.source.pairs, request.source.root, request.rules

    def verify_row(row: Row) -> Row:
        return {"verification": verify(pairs[row["item"]], root, rules).model_dump_json()}

    verifications = []
    for row in _map(verify_row, list(range(len(pairs))), num_workers):
        verifications.append(Verification.model_validate_json(row["verification"]))
        progress("verify", len(verifications), len(pairs))
    return verifications


def _survey_all(
    plan: IngestPlan, verifications: list[Verification], num_workers: int | None, progress: Progress
) -> list[GridSurvey]:
    facts = {each.case: each.facts for each in verifications if each.facts}

    def survey_row(row: Row) -> Row:
        case = plan.cases[row["item"]]
        outcome = Outcome.of(survey, case, facts[case.pair.case], plan.info)
        return {"error": outcome.sentence, "survey": outcome.result.model_dump_json() if outcome.result else ""}

    is_changed = [changes_grid(facts[case.pair.case], plan.info) for case in plan.cases]
    changed = [number for number, it_is in enumerate(is_changed) if it_is]
    surveys = [
        unchanged(case, facts[case.pair.case]) for case, it_is in zip(plan.cases, is_changed, strict=True) if not it_is
    ]
    for done, row in enumerate(_map(survey_row, changed, num_workers), start=1):
        if row["error"]:
            raise DataError(row["error"])
        surveys.append(GridSurvey.model_validate_json(row["survey"]))
        progress("survey", done, len(changed))
    return surveys


def _prepare_all(out: Path, plan: IngestPlan, num_workers: int | None, progress: Progress) -> None:
    def prepare_row(row: Row) -> Row:
        return {"error": Outcome.of(_prepare_case, out, row["item"], plan).sentence}

    missing = output_folder.begin(out, plan)
    done = len(plan.cases) - len(missing)
    progress("prepare", done, len(plan.cases))
    for row in _map(prepare_row, missing, num_workers):
        if row["error"]:
            raise DataError(row["error"])
        done += 1
        progress("prepare", done, len(plan.cases))
    if not all(case_path(out, number).exists() for number in range(len(plan.cases))):
        raise DataError(
            f"cases of {out} were written on other machines. Give a folder on storage that every machine of the "
            "cluster sees."
        )


def _prepare_case(out: Path, number: int, plan: IngestPlan) -> None:
    try:
        write_prepared_case(out, number, prepare(plan.cases[number], plan.info))
    except OSError as error:
        raise DataError(str(error)) from error


def _map(function: Callable[[Row], Row], items: list[int], num_workers: int | None) -> Iterator[Row]:
    """Apply a function to {"item": number} rows, one task each; results come as they are ready."""
    if not items:
        return
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False  # the caller shows the progress
    with ray.data.DataContext.current(context):
        rows = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
        compute = ray.data.TaskPoolStrategy(size=num_workers)
        results = rows.map(function, compute=compute)
    yield from results.iter_rows()
