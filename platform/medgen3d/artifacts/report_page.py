"""`report.html`: the page of a report. A jinja2 template of that name holds the markup; this module hands it the data.

The page embeds its pictures and loads nothing; a content security policy in its head forbids it to.
"""

import base64
import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from medgen3d.artifacts.report import Report, Verdict
from medgen3d.artifacts.report_parts import Cell

DASH = "–"
_OUTCOMES = {True: "✓ pass", False: "✗ fail", None: "– not measured"}


class _Png(NamedTuple):
    """A picture as the page embeds it. width, height: In pixels, so that the page keeps its place free."""

    base64: str
    width: int
    height: int

    @classmethod
    def of(cls, png: bytes) -> "_Png":
        width, height = struct.unpack(">II", png[16:24])  # every PNG begins with its size
        return cls(base64.b64encode(png).decode("ascii"), width, height)


def as_html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The whole page; the template escapes every text that comes from the data.

    Args:
        report: What the page shows.
        pictures: {file name: PNG} of every picture that a section names.
    """
    page = Environment(
        loader=PackageLoader("medgen3d.artifacts", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page.filters |= {"shown": shown, "outcome": outcome, "code_apart": _code_apart}
    embedded = {name: _Png.of(png) for name, png in pictures.items()}
    return page.get_template("report.html").render(report=report, pictures=embedded)


def number(value: float | None) -> str:
    """Three significant digits, without an exponent where one can be avoided; a dash for what is not known."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def outcome(verdict: Verdict) -> str:
    """A verdict in words: a colour alone would not do."""
    return _OUTCOMES[verdict.passed]


def shown(cell: Cell) -> str:
    """A cell of a table as text; only fractions are rounded."""
    return number(cell) if cell is None or isinstance(cell, float) else str(cell)


def _code_apart(text: str) -> list[str]:
    """Plain text and code in turn, plain text first; code stands between backticks."""
    return re.split("`([^`]+)`", text)
