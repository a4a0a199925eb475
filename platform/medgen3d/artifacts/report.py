"""The report: `report.json` for programs, one self-contained `report.html` for people, and the pictures in it as files.

The page embeds its pictures and loads nothing; a content security policy in its head forbids it to.
"""

import base64
import html
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from pydantic import AwareDatetime, BaseModel, ConfigDict

from medgen3d.artifacts.versioned_json import read_versioned, write_versioned

MONTAGE, SYNTHETIC_MONTAGE = "montage.png", "synthetic.png"
VOLUME_PLOT, INTENSITY_PLOT = "volumes.png", "intensities.png"
PICTURES = (MONTAGE, SYNTHETIC_MONTAGE, VOLUME_PLOT, INTENSITY_PLOT)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Part):
    """Mean, standard deviation (of the cases, not of the mean), smallest and largest value."""

    mean: float
    std: float
    min: float
    max: float


class LabelFigures(_Part):
    """One label in one set.

    num_cases_with: Cases that hold at least one voxel of it.
    voxels, volume_ml: Over all cases.
    components: 6-connected components, over the cases that hold the label; None where no case does.
    """

    num_cases_with: int
    voxels: Spread
    volume_ml: Spread
    components: Spread | None


class LabelComparison(_Part):
    """One label, real against synthetic.

    volume_difference: (synthetic - real) / real, of the mean volumes; None where no real case holds the label.
    """

    label_id: int
    name: str
    real: LabelFigures
    synthetic: LabelFigures
    volume_difference: float | None


class IntensityFigures(_Part):
    """1-Wasserstein distances of normalised intensities; see `evaluation.summary`.

    distance: Synthetic to real.
    floor: Real to real, with equally many cases; None with a single real case.
    num_per_side: Cases on each side of a comparison.
    """

    distance: float
    floor: float | None
    num_per_side: int
    num_splits: int

    @property
    def ratio(self) -> float | None:
        """The distance in multiples of the floor."""
        return self.distance / self.floor if self.floor else None


class SetDescription(_Part):
    """One of the two sets. facts: {term: sentence} about where it comes from."""

    name: str
    num_cases: int
    phantom: bool
    facts: dict[str, str]


class Report(_Part):
    """`report.json`. spacing_mm: Voxel size along (D, H, W)."""

    schema_version: int = 1
    created: AwareDatetime
    code_version: str
    spacing_mm: tuple[float, float, float]
    real: SetDescription
    synthetic: SetDescription
    labels: list[LabelComparison]
    intensity: IntensityFigures

    @property
    def phantom(self) -> bool:
        return self.real.phantom or self.synthetic.phantom


def write_report(root: Path, report: Report, pictures: Mapping[str, bytes]) -> None:
    """Write the report's files into `root`, which is made where it is missing; `report.html` comes last.

    Args:
        root: The report's folder.
        report: The figures.
        pictures: {name in PICTURES: PNG file}.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
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
    return read_versioned(root / "report.json", Report, "Write it again with `medgen3d report`.")


def as_html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The whole page. Every text that comes from the data is escaped."""
    template = Template(resources.files("medgen3d.artifacts").joinpath("report.html").read_text(encoding="utf-8"))
    embedded = {name.removesuffix(".png"): _data_uri(pictures[name]) for name in PICTURES}
    return template.substitute(
        embedded,
        phantom=_PHANTOM if report.phantom else "",
        real_name=_text(report.real.name),
        num_real=report.real.num_cases,
        num_synthetic=report.synthetic.num_cases,
        created=report.created.strftime("%Y-%m-%d %H:%M UTC"),
        tiles=_tiles(report),
        label_rows="\n".join(_label_row(label) for label in report.labels),
        num_per_side=report.intensity.num_per_side,
        num_splits=report.intensity.num_splits,
        distance=_number(report.intensity.distance),
        floor=_number(report.intensity.floor),
        ratio=_number(report.intensity.ratio),
        real_facts=_facts(report.real),
        synthetic_facts=_facts(report.synthetic),
        spacing=" × ".join(f"{length:g}" for length in report.spacing_mm),
        code_version=_text(report.code_version),
    )


_PHANTOM = (
    '<p class="phantom" role="note"><strong>PHANTOM DATA</strong> '
    "This report is about computed phantoms. No patient was imaged, and nothing here says anything about real data.</p>"
)


def _tiles(report: Report) -> str:
    """The three figures that one looks for first, the first two for the label where they are worst."""
    differences = {
        label.name: label.volume_difference for label in report.labels if label.volume_difference is not None
    }
    components = {label.name: each.mean for label in report.labels if (each := label.synthetic.components)}
    furthest = max(differences, key=lambda name: abs(differences[name]), default="")
    most = max(components, key=lambda name: components[name], default="")
    tiles = (
        ("Largest difference of a mean label volume", _percent(differences.get(furthest)), furthest),
        ("Most components of a label, mean over cases", _number(components.get(most)), most),
        ("Intensity distance", _number(report.intensity.ratio), "times the real-to-real floor"),
    )
    return "\n".join(
        f"<div><dt>{term}</dt><dd>{value} <small>{_text(note)}</small></dd></div>" for term, value, note in tiles
    )


def _label_row(label: LabelComparison) -> str:
    real, synthetic = label.real, label.synthetic
    cells = (
        str(label.label_id),
        _spread(real.volume_ml),
        _spread(synthetic.volume_ml),
        _percent(label.volume_difference),
        _number(real.voxels.mean),
        _number(synthetic.voxels.mean),
        _number(real.components.mean if real.components else None),
        _number(synthetic.components.mean if synthetic.components else None),
        str(real.num_cases_with),
        str(synthetic.num_cases_with),
    )
    return f'<tr><th scope="row">{_text(label.name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _facts(description: SetDescription) -> str:
    facts = {"Name": description.name, "Cases": str(description.num_cases)} | description.facts
    return "\n".join(f"<div><dt>{_text(term)}</dt><dd>{_text(fact)}</dd></div>" for term, fact in facts.items())


def _spread(spread: Spread) -> str:
    """Mean and deviation to the same decimals, three significant digits of the mean."""
    decimals = max(0, 2 - math.floor(math.log10(abs(spread.mean)))) if spread.mean else 2
    return f"{spread.mean:,.{decimals}f} ± {spread.std:,.{decimals}f}"


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent where one can be avoided; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
