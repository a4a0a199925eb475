"""A report's folder: `report.json` for programs, one self-contained `report.html` for people, its pictures as files."""

from collections.abc import Mapping
from pathlib import Path

from medgen3d.artifacts.report import Report
from medgen3d.artifacts.report_page import as_html
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned


def write_report(root: Path, report: Report, pictures: Mapping[str, bytes]) -> None:
    """Write the report's files into `root`, which is made where it is missing; `report.html` comes last.

    Args:
        root: The report's folder.
        report: Everything but the pictures.
        pictures: {file name: PNG} of every picture that a section names.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in report.pictures:
        (root / name).write_bytes(pictures[name])
    write_versioned(root / "report.json", report)
    unfinished = root / "report.html.unfinished"
    unfinished.write_text(as_html(report, pictures), encoding="utf-8")
    unfinished.replace(root / "report.html")


def read_report(root: Path) -> Report:
    """Read `report.json`.

    Raises:
        ArtifactError: The file is missing or damaged, or was written by another version.
    """
    return read_versioned(root / "report.json", Report, "Write it again with `medgen3d evaluate`.")
