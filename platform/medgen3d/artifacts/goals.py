"""Goals: the limits that the metrics of a report are held to, as a YAML list; `goals.yaml` holds the default ones."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from medgen3d.artifacts.report import Verdict
from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.errors import ConfigError


class Goal(BaseModel):
    """One goal; exactly one of the three limits is given.

    metric: Name of a metric, or a pattern such as "fidelity.fid.*": every metric that fits is judged. In files it is
        called `figure`.
    title: What the goal is about, for people; by default the metric's title.
    at_most, at_least: Limit of the value itself.
    at_most_floors: Limit of the value in multiples of its real-to-real floor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    metric: Annotated[str, Field(alias="figure", min_length=1)]
    title: str = ""
    at_most: float | None = None
    at_least: float | None = None
    at_most_floors: float | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        limits = (self.at_most, self.at_least, self.at_most_floors)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError(f"the goal of {self.metric} needs exactly one of at_most, at_least and at_most_floors")
        return self

    @property
    def limit(self) -> str:
        if self.at_most_floors is not None:
            return f"at most {self.at_most_floors:g} × the real-to-real floor"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def fits(self, name: str) -> bool:
        """Whether a metric of this name is judged by the goal."""
        return name == self.metric or fnmatchcase(name, self.metric)

    def is_met(self, value: float | None, floor: float | None) -> bool | None:
        """None where the value, or the floor that the limit is about, is missing."""
        if value is None:
            return None
        if self.at_most_floors is not None:
            return None if floor is None else value <= self.at_most_floors * floor
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


def default_goals() -> list[Goal]:
    """The goals that every report is held to when no others are given."""
    path = resources.files("medgen3d.artifacts").joinpath("goals.yaml")
    return _parse(path.read_text(encoding="utf-8"), "goals.yaml")


def read_goals(path: Path) -> list[Goal]:
    """Read a YAML list of goals.

    Raises:
        ConfigError: The file cannot be read, is empty or no list of goals, or a goal has an unknown key or no limit.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"cannot read the goals {path}: {reason}") from error


def judge_metrics(goals: Sequence[Goal], metrics: Iterable[Metric]) -> list[Verdict]:
    """One verdict per goal and metric that fits it, in the goals' order; a goal that none fits is not measured."""
    found = list(metrics)
    verdicts = []
    for goal in goals:
        judged = [metric for metric in found if goal.fits(metric.name)]
        verdicts += [_verdict(goal, metric) for metric in judged] or [_unmeasured(goal)]
    return verdicts


def _verdict(goal: Goal, metric: Metric) -> Verdict:
    return Verdict(
        metric=metric.name,
        goal=f"{goal.title or metric.title}: {goal.limit}",
        value=metric.value,
        floor=metric.floor,
        ratio=metric.ratio,
        passed=goal.is_met(metric.value, metric.floor),
    )


def _unmeasured(goal: Goal) -> Verdict:
    sentence = f"{goal.title or goal.metric}: {goal.limit}"
    return Verdict(metric=goal.metric, goal=sentence, value=None, floor=None, ratio=None, passed=None)


def _parse(text: str, origin: str) -> list[Goal]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{origin} holds no list of goals, such as `- {{figure: agreement.dice_gap, at_most: 0.03}}`")
    try:
        return TypeAdapter(list[Goal]).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # raised by our own check, which says what was found
        return str(first["ctx"]["error"])
    number, *key = first["loc"]
    allowed = ", ".join(field.alias or name for name, field in Goal.model_fields.items())
    return f"goal {int(number) + 1}, {'.'.join(map(str, key)) or 'whole'}: {first['msg']}; a goal's keys are {allowed}"
