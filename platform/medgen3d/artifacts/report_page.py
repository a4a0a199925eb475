"""`report.html`: the page that a report's sections make, generated from whatever they hold.

The page embeds its pictures and loads nothing; a content security policy in its head forbids it to.
"""

import base64
import html
import re
import struct
from collections.abc import Iterable, Mapping
from importlib import resources
from string import Template

from medgen3d.artifacts.report import Report, SetDescription, Verdict
from medgen3d.artifacts.report_parts import Cell, Metric, Picture, ReportSection, Table

DASH = "–"
_PHANTOM = (
    '<p class="phantom" role="note"><strong>PHANTOM DATA</strong> '
    "This report is about computed phantoms. No patient was imaged, and nothing here says anything about real data.</p>"
)
_OUTCOMES = {True: ("passed", "✓ pass"), False: ("failed", "✗ fail"), None: ("unmeasured", "– not measured")}


def as_html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The whole page. Every text that comes from the data is escaped."""
    template = Template(resources.files("medgen3d.artifacts").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        phantom=_PHANTOM if report.phantom else "",
        real_name=_text(report.real.name),
        num_real=report.real.num_cases,
        num_synthetic=report.synthetic.num_cases,
        pipeline=_text(f"{report.pipeline.name} version {report.pipeline.version}"),
        created=report.created.strftime("%Y-%m-%d %H:%M UTC"),
        tiles=_tiles(report.verdicts),
        verdicts=_verdicts(report),
        contents="\n".join(f'<li><a href="#{each.name}">{_text(each.title)}</a></li>' for each in report.sections),
        sections="\n".join(_section(each, pictures) for each in report.sections),
        provenance=_provenance(report),
        spacing=" × ".join(f"{length:g}" for length in report.spacing_mm),
        code_version=_text(report.code_version),
    )


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where one can be avoided; a dash for what is not known."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def outcome(verdict: Verdict) -> str:
    """A verdict in words: a colour alone would not do."""
    return _OUTCOMES[verdict.passed][1]


def _tiles(verdicts: list[Verdict]) -> str:
    """How many goals are met, missed and not measured."""
    counts = [sum(verdict.passed is wanted for verdict in verdicts) for wanted in (True, False, None)]
    terms = ("Goals met", "Goals missed", "Not measured")
    return "\n".join(
        f"<div><dt>{term}</dt><dd>{count} <small>of {len(verdicts)}</small></dd></div>"
        for term, count in zip(terms, counts, strict=True)
    )


def _verdicts(report: Report) -> str:
    rows = [
        [
            f"{_text(each.goal)}<br><code>{_text(each.figure)}</code>",
            f'<span class="{_OUTCOMES[each.passed][0]}">{outcome(each)}</span>',
            number(each.value),
            number(each.floor),
            number(each.ratio),
        ]
        for each in report.verdicts
    ]
    columns = ["Goal", "Verdict", "Value", "Floor", "× floor"]
    return _table("Goals and verdicts", columns, rows, "verdicts") if rows else "<p>No goals were given.</p>"


def _section(section: ReportSection, pictures: Mapping[str, bytes]) -> str:
    parts = [f"<p>{_prose(section.about)}</p>"] if section.about else []
    if section.not_run:
        parts.append(f'<p class="missing"><strong>Not run.</strong> {_prose(section.not_run)}</p>')
    if section.figures:
        columns = ["Metric", "Value", "95 % interval", "Floor", "× floor", "N"]
        parts.append(_table(f"Figures: {section.title}", columns, map(_figure_row, section.figures), "figures"))
    parts += [_titled_table(table) for table in section.tables]
    parts += [_picture(picture, pictures[picture.file]) for picture in section.pictures]
    title = f'<h2 id="{section.name}-title">{_text(section.title)}</h2>'
    opening = f'<section id="{section.name}" aria-labelledby="{section.name}-title">'
    return "\n".join([opening, title, *parts, "</section>"])


def _figure_row(figure: Metric) -> list[str]:
    unit = f" [{_text(figure.unit)}]" if figure.unit else ""
    note = f"<br><small>{_text(figure.note)}</small>" if figure.note else ""
    interval = " to ".join(number(end) for end in figure.interval) if figure.interval else DASH
    return [
        f"{_text(figure.title)}{unit}{note}",
        number(figure.value),
        interval,
        number(figure.floor),
        number(figure.ratio),
        f"{figure.num} <small>{_text(figure.num_of)}</small>",
    ]


def _titled_table(table: Table) -> str:
    note = f"<p>{_text(table.note)}</p>" if table.note else ""
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return f"<h3>{_text(table.title)}</h3>{note}{_table(table.title, list(map(_text, table.columns)), rows, 'cells')}"


def _table(label: str, columns: list[str], rows: Iterable[list[str]], kind: str) -> str:
    """A table that scrolls by itself. Columns and rows are HTML already; the first cell of a row is its header."""
    head = "".join(f'<th scope="col"{" class=name" if not at else ""}>{each}</th>' for at, each in enumerate(columns))
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(label)}, scrolls sideways">\n'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _picture(picture: Picture, png: bytes) -> str:
    width, height = struct.unpack(">II", png[16:24])  # every PNG begins with its size; the page keeps the place free
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{_text(picture.caption)}, scrolls sideways">'
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'style="min-width: min(40rem, {width}px)" alt="{_text(picture.alt)}"></div>\n'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
    )


def _provenance(report: Report) -> str:
    sets = {"Synthetic": report.synthetic, "Real": report.real, "Training": report.train}
    return "\n".join(_set(title, each) for title, each in sets.items() if each)


def _set(title: str, description: SetDescription) -> str:
    facts = {"Name": description.name, "Cases": str(description.num_cases)} | description.facts
    rows = "\n".join(f"<div><dt>{_text(term)}</dt><dd>{_text(fact)}</dd></div>" for term, fact in facts.items())
    return f'<div><h3>{title}</h3><dl class="facts">\n{rows}\n</dl></div>'


def _cell(cell: Cell) -> str:
    if cell is None:
        return DASH
    return number(cell) if isinstance(cell, float) else _text(str(cell))


def _prose(text: str) -> str:
    """Escaped text in which what stands between backticks is set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return html.escape(text, quote=True)
