"""Output for a person at a terminal or for a job's log: results on stdout; progress, problems, errors on stderr."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_LOG_EVERY_S = 10.0  # in a log file, where a bar cannot move
_NOTE_EVERY_S = 60.0  # where only the note has changed
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
    """A bar for each thing that is shown; where stderr is no terminal, lines as of `progress_log`."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield progress_log(notice, time.monotonic)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as bars:
        tasks = {}

        def show(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)

        yield show


def progress_log(tell: Callable[[str], None], clock: Callable[[], float]) -> Show:
    """Progress as lines: for each thing one at its end, and before it one per ten seconds in which it got on.

    Where only the note changes, a line per minute says that it is alive.

    Args:
        tell: Takes a line.
        clock: Seconds since any moment.
    """
    things: dict[str, _Followed] = {}

    def show(what: str, done: int, total: int, note: str = "") -> None:
        now_s = clock()
        if what not in things or (things[what].is_finished and done < total):  # some work is done twice under one name
            things[what] = _Followed(begun_s=now_s, begun_at=done, told_s=now_s, told=(done, ""))
        thing = things[what]
        if thing.first is None and done > thing.begun_at:
            thing.first = (done, now_s)
        pause_s = _LOG_EVERY_S if done != thing.told[0] else _NOTE_EVERY_S if note != thing.told[1] else math.inf
        if thing.is_finished or (done < total and now_s - thing.told_s < pause_s):
            return
        tell(f"{what}: {done} of {total}{thing.pace(done, total, now_s)}{', ' + note if note else ''}")
        thing.told_s, thing.told, thing.is_finished = now_s, (done, note), done >= total

    return show


@dataclass(slots=True)
class _Followed:
    """A thing that progresses: its beginning, and what was told of it last."""

    begun_s: float
    begun_at: int
    told_s: float
    told: tuple[int, str]
    first: tuple[int, float] | None = None  # how far it was when it had first got on, and when
    is_finished: bool = False

    def pace(self, done: int, total: int, now_s: float) -> str:
        """Rate and time left since it first got on; at the end the whole time, unless it was short."""
        if done >= total:
            return f" in {duration(now_s - self.begun_s)}" if now_s - self.begun_s >= 1 else ""
        if self.first is None or done <= self.first[0] or now_s <= self.first[1]:
            return ""
        steps, spent_s = done - self.first[0], now_s - self.first[1]
        rate = f"{steps / spent_s:.3g}/s" if steps >= spent_s else f"{spent_s / steps:.3g} s each"
        return f" ({rate}, {duration((total - done) * spent_s / steps)} left)"


def duration(seconds: float) -> str:
    """Such as 2 h 5 min, 3 min 20 s or 40 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def figures(values: Mapping[str, float]) -> str:
    """The few figures of a training step that fit a line: total losses and speed."""
    shown = {name: value for name, value in values.items() if name.endswith("/total")}
    parts = [f"{name.removesuffix('/total')} {value:.3g}" for name, value in shown.items()]
    if "examples_per_second" in values:
        parts.append(f"{values['examples_per_second']:.3g} examples/s")
    return ", ".join(parts)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_LOG_WIDTH)
