"""The worth of each part of the pipeline and each option of the mask generator: the ablation of docs/quality.md.

The options of the refiner have a script of their own, `refinement.py`, which draws the incoming images once.

Every row is two commands, which are printed: `medgen3d synthesize` into OUT/<row>/pairs and `medgen3d evaluate` into
OUT/<row>/report. What is there is kept, so a stopped run goes on. The rows that change only the images draw them for
the masks of the first row.

    python benchmarks/quality.py --pipeline hippocampus --real prepared --out ablation --count 20
"""

import argparse
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from medgen3d.artifacts.report import Report
from medgen3d.artifacts.report_files import read_report

GENERATED, REAL = "generated masks", "real masks"


@dataclass(frozen=True)
class Row:
    """name: Of the row and, with dashes, of its folder. masks: Where they come from; None: drawn anew."""

    name: str
    settings: tuple[str, ...] = ()
    masks: str | None = GENERATED


ROWS = (
    Row("as shipped", masks=None),
    Row("real masks", masks=REAL),
    Row("without refiner", ("synthesis.refine=false",)),
    Row("mask guidance 1.5", ("mask_generator.guidance=1.5",), masks=None),
    Row("mask 5 steps", ("mask_generator.sampling_steps=5",), masks=None),
    Row("mask 10 steps", ("mask_generator.sampling_steps=10",), masks=None),
    Row("mask 50 steps", ("mask_generator.sampling_steps=50",), masks=None),
)
COLUMNS = {
    "Dice gap": "agreement.dice_gap",
    "FID axial": "fidelity.fid.axial",
    "FID coronal": "fidelity.fid.coronal",
    "FID sagittal": "fidelity.fid.sagittal",
    "intensity": "fidelity.intensity",
    "spectrum axial": "consistency.spectrum.axial",
    "spectrum sagittal": "consistency.spectrum.sagittal",
}
VOLUMES = "plausibility.volume."


def main() -> None:
    """Do all rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--real", type=Path, required=True, help="the prepared set that the pipeline was trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="names of rows; by default all")
    parser.add_argument("--set", action="append", default=[], help="passed on to both commands")
    options = parser.parse_args()
    known = [row.name for row in ROWS]
    for name in options.only or ():
        if name not in known:
            sys.exit(f"there is no row {name!r}; there are {', '.join(known)}")
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    for row in rows:
        _do(row, options)
    print(f"\n{platform.processor() or platform.machine()}, {options.count} cases per row\n")
    print("\n".join(table({row.name: read_report(_folder(options.out, row) / "report") for row in rows})))


def table(reports: dict[str, Report]) -> list[str]:
    """A Markdown table: the Dice gap, and the others in multiples of their floors."""
    names = [*COLUMNS, "volumes"]
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for row, report in reports.items():
        found = {metric.name: metric for metric in report.metrics}
        gap, *others = COLUMNS.values()
        cells = [_number(found[gap].value)] + [_number(found[name].ratio) for name in others]
        ratios = [metric.ratio for name, metric in found.items() if name.startswith(VOLUMES) and metric.ratio]
        lines.append(f"| {row} | " + " | ".join([*cells, _number(max(ratios, default=None))]) + " |")
    return lines


def _do(row: Row, options: argparse.Namespace) -> None:
    folder = _folder(options.out, row)
    passed_on = [word for setting in options.set for word in ("--set", setting)]
    if not (folder / "report" / "report.json").exists():
        draw = ["synthesize", "--pipeline", options.pipeline, "--count", str(options.count), "--out", folder / "pairs"]
        if row.masks:
            masks = {REAL: options.real, GENERATED: _folder(options.out, ROWS[0]) / "pairs"}[row.masks]
            draw += ["--masks", masks]
        _run([*draw, *(word for setting in row.settings for word in ("--set", setting)), *passed_on])
        compare = ["evaluate", "--real", options.real, "--synthetic", folder / "pairs", "--out", folder / "report"]
        _run([*compare, *passed_on])


def _run(arguments: list[object]) -> None:
    words = [str(word) for word in arguments]
    print("medgen3d " + shlex.join(words), flush=True)
    since = time.monotonic()
    subprocess.run([sys.executable, "-m", "medgen3d", *words], check=True, stderr=subprocess.DEVNULL)
    print(f"    {time.monotonic() - since:.0f} s", flush=True)


def _folder(out: Path, row: Row) -> Path:
    return out / row.name.replace(" ", "-")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
