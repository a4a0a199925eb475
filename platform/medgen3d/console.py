"""What a person at a terminal, or a job's log, sees: results on stdout; progress, problems and errors on stderr."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_LOG_EVERY_S = 10.0  # in a log file, where a bar cannot move
_LOG_WIDTH = 160

Show = Callable[..., None]
"""(what, done, total, note=""): how far something is."""


def say(text: str) -> None:
    """A result. Printed as it is: paths and commands stay on one line, to be copied."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def notice(text: str) -> None:
    """Something to know that is not the result."""
    _console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, problems: bool = False) -> None:
    """A table on stdout, or on stderr if it is one of problems."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _console(stderr=problems).print(table, markup=False, highlight=False)


def begin_logging(*, verbose: bool) -> None:
    """Warnings, or with `verbose` everything that happens, on stderr above the progress bars."""
    handler = RichHandler(console=_console(stderr=True), show_path=False, markup=False)
    logging.basicConfig(level="INFO" if verbose else "WARNING", format="%(message)s", handlers=[handler])


@contextmanager
def progress() -> Iterator[Show]:
    """A bar for each thing that is shown; where stderr is no terminal, a line every ten seconds and at the end."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as bars:
        tasks = {}

        def show(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)

        yield show


def figures(values: Mapping[str, float]) -> str:
    """The few figures of a training step that fit a line: total losses and speed."""
    shown = {name: value for name, value in values.items() if name.endswith("/total")}
    parts = [f"{name.removesuffix('/total')} {value:.3g}" for name, value in shown.items()]
    if "examples_per_second" in values:
        parts.append(f"{values['examples_per_second']:.3g} examples/s")
    return ", ".join(parts)


def _lines(console: Console) -> Show:
    since: dict[str, float] = {}
    finished = set()

    def show(what: str, done: int, total: int, note: str = "") -> None:
        last = since.setdefault(what, time.monotonic())
        if what in finished or (done < total and time.monotonic() - last < _LOG_EVERY_S):
            return
        since[what] = time.monotonic()
        if done >= total:
            finished.add(what)
        console.print(f"{what}: {done} of {total}{', ' + note if note else ''}", markup=False, highlight=False)

    return show


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_LOG_WIDTH)
