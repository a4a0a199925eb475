"""`medgen3d ingest`: labelled volumes become a prepared set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import RayOptions, grouped

if TYPE_CHECKING:
    from medgen3d.artifacts.prepared_set import DatasetInfo
    from medgen3d.ingest.problems import BadCasesError

app = typer.Typer()
_NUM_NOTES, _NUM_CASES = 20, 5
"""Notes that are shown, and cases that each of them names."""


@app.command(epilog="Example: medgen3d ingest Task04_Hippocampus --out prepared --dry-run")
@grouped
def ingest(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Decathlon, nnU-Net, folder pairs or DICOM + NIfTI.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prepared set.")],
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default as the source says.")] = None,
    labels: Annotated[Path | None, typer.Option(help='JSON file {"1": "liver", ...}.')] = None,
    image: Annotated[str, typer.Option(help="Name of the image within a case folder.")] = "image.nii.gz",
    mask: Annotated[str, typer.Option(help="Name of the mask within a case folder.")] = "mask.nii.gz",
    patient_regex: Annotated[
        str | None, typer.Option(help="Finds the patient in a case's name: one patient goes into one split.")
    ] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV file with the columns case and patient.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad cases out, and list them.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a different prepared set in --out.")] = False,
    *,
    options: RayOptions,
) -> None:
    """Verify labelled volumes and turn them into a prepared set for training."""
    experiment = options.begin()
    from medgen3d.ingest.problems import BadCasesError

    try:
        with options.on_ray() as show:
            from medgen3d.ingest import on_ray

            info = on_ray.ingest(
                source,
                out,
                experiment.ingest,
                seed=experiment.seed,
                name=name,
                image_name=image,
                mask_name=mask,
                labels_file=labels,
                patient_regex=patient_regex,
                patients_csv=patients,
                skip_bad=skip_bad,
                overwrite=overwrite,
                dry_run=options.dry_run,
                progress=show,
            )
    except BadCasesError as error:
        _show_problems(error)
        raise
    _show_prepared(info)
    console.say(f"Nothing was written (--dry-run): {out}" if options.dry_run else f"Prepared set: {out}")


def _show_problems(error: "BadCasesError") -> None:
    rows = [(each.case, each.kind, each.found, each.expected, each.remedy) for each in error.problems]
    console.show_table("Problems", ("case", "problem", "found", "expected", "what to do"), rows, problems=True)


def _show_prepared(info: "DatasetInfo") -> None:
    from medgen3d.ingest.split import SPLITS

    facts = {
        "data set": f"{info.name}{' (PHANTOM)' if info.phantom else ''}, {info.modality}",
        "cases": ", ".join(f"{split} {len(info.case_ids(split))}" for split in SPLITS),
        "patients": "known" if info.patients_known else "unknown: every case counts as a patient of its own",
        "labels": ", ".join(f"{label_id} {label}" for label_id, label in info.labels.items()),
        "spacing": " x ".join(f"{length:g}" for length in info.spacing_mm) + " mm (D x H x W)",
        "plane": " x ".join(str(length) for length in info.plane) + " pixels (H x W)",
        "left out": ", ".join(info.skipped) or "none",
        "cut to the plane": ", ".join(info.cropped) or "none",
    }
    console.show_table("Prepared set", ("what", "found"), list(facts.items()))
    _show_notes(info.notes)


def _show_notes(notes: dict[str, list[str]]) -> None:
    """Each sentence with the first of its cases; all of them stand in dataset.yaml."""
    for note, cases in list(notes.items())[:_NUM_NOTES]:
        more = f" and {len(cases) - _NUM_CASES} more" if len(cases) > _NUM_CASES else ""
        console.notice(f"{', '.join(cases[:_NUM_CASES])}{more}: {note}" if cases else note)
    if len(notes) > _NUM_NOTES:
        console.notice(f"{len(notes) - _NUM_NOTES} further notes stand in dataset.yaml")
