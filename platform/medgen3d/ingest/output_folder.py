"""The output folder: what may be kept of an earlier run, what may be replaced, and what must not be touched.

`plan.sha256` is written before the first case and stays: it tells which plan the cases in the folder were made from.
"""

from pathlib import Path

from medgen3d.artifacts.prepared_set import holds_case
from medgen3d.core.errors import DataError
from medgen3d.ingest.plan import IngestPlan

_PLAN_FILE = "plan.sha256"


def refuse_foreign(out: Path) -> None:
    """Refuse a folder in which something other than ingest has written.

    Raises:
        DataError: `out` is a file, or a folder with content but without a plan.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file. Give a folder for the prepared set.")
    if out.is_dir() and any(out.iterdir()) and not (out / _PLAN_FILE).is_file():
        raise DataError(f"{out} is not empty and holds no prepared set. Give a new folder.")


def refuse_other(out: Path, plan: IngestPlan) -> None:
    """Refuse a folder whose prepared set, finished or not, comes from another plan.

    Raises:
        DataError: The folder holds a set of another plan, or something else.
    """
    refuse_foreign(out)
    if (out / _PLAN_FILE).is_file() and not _is_from(out, plan):
        state = (
            "a different prepared set" if (out / "dataset.yaml").exists() else "an unfinished, different prepared set"
        )
        raise DataError(f"{out} holds {state}. Give a new folder, or replace it with --overwrite.")


def begin(out: Path, plan: IngestPlan) -> list[int]:
    """Make the folder ready for a plan, removing what another plan left, and list the cases that are yet to be made.

    From here on until `dataset.yaml` is written the folder is no prepared set.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        (out / "cases").mkdir(parents=True, exist_ok=True)
        (out / "dataset.yaml").unlink(missing_ok=True)
        if not _is_from(out, plan):
            for case in (out / "cases").iterdir():
                case.unlink()
            (out / _PLAN_FILE).write_text(plan.hash + "\n")
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error}. Give a folder that can be written.") from error
    return missing_cases(out, plan)


def missing_cases(out: Path, plan: IngestPlan) -> list[int]:
    """The numbers of the cases that are not there, or not sound."""
    return [number for number, case_id in enumerate(plan.info.case_ids()) if not holds_case(out, number, case_id)]


def _is_from(out: Path, plan: IngestPlan) -> bool:
    path = out / _PLAN_FILE
    return path.is_file() and path.read_text().strip() == plan.hash
