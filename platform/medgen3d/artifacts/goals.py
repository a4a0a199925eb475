"""Gates: what the figures of a report are held to. A YAML list; `goals.yaml` beside this module is the default one."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from medgen3d.artifacts.report import Verdict
from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.errors import ConfigError


class Goal(BaseModel):
    """One goal; exactly one of the three limits is given.

    figure: Name of a figure, or a pattern such as "fidelity.fid.*": every figure that fits is judged.
    title: What the goal is about, for people; by default the figure's title.
    at_most, at_least: Limit of the value itself.
    at_most_floors: Limit of the value in multiples of its real-to-real floor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    figure: str = Field(min_length=1)
    title: str = ""
    at_most: float | None = None
    at_least: float | None = None
    at_most_floors: float | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        limits = (self.at_most, self.at_least, self.at_most_floors)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError(f"the gate of {self.figure} needs exactly one of at_most, at_least and at_most_floors")
        return self

    @property
    def limit(self) -> str:
        if self.at_most_floors is not None:
            return f"at most {self.at_most_floors:g} × the real-to-real floor"
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def fits(self, name: str) -> bool:
        """Whether a figure of this name is judged by the gate."""
        return name == self.figure or fnmatchcase(name, self.figure)

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
    """The goals that every report is held to when no other gates are given."""
    path = resources.files("medgen3d.artifacts").joinpath("goals.yaml")
    return _parse(path.read_text(encoding="utf-8"), "goals.yaml")


def read_goals(path: Path) -> list[Goal]:
    """Read a YAML list of gates.

    Raises:
        ConfigError: The file cannot be read, is empty or no list of gates, or a gate has an unknown key or no limit.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"cannot read the gates {path}: {reason}") from error


def judge_metrics(gates: Sequence[Goal], figures: Iterable[Metric]) -> list[Verdict]:
    """One verdict per gate and figure that fits it, in the gates' order; a gate that none fits is not measured."""
    found = list(figures)
    verdicts = []
    for gate in gates:
        judged = [figure for figure in found if gate.fits(figure.name)]
        verdicts += [_verdict(gate, figure) for figure in judged] or [_unmeasured(gate)]
    return verdicts


def _verdict(gate: Goal, figure: Metric) -> Verdict:
    return Verdict(
        figure=figure.name,
        goal=f"{gate.title or figure.title}: {gate.limit}",
        value=figure.value,
        floor=figure.floor,
        ratio=figure.ratio,
        passed=gate.is_met(figure.value, figure.floor),
    )


def _unmeasured(gate: Goal) -> Verdict:
    goal = f"{gate.title or gate.figure}: {gate.limit}"
    return Verdict(figure=gate.figure, goal=goal, value=None, floor=None, ratio=None, passed=None)


def _parse(text: str, origin: str) -> list[Goal]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{origin} holds no list of gates, such as `- {{figure: agreement.dice_gap, at_most: 0.03}}`")
    try:
        return TypeAdapter(list[Goal]).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # raised by our own check, which says what was found
        return str(first["ctx"]["error"])
    number, *key = first["loc"]
    allowed = ", ".join(Goal.model_fields)
    return f"gate {int(number) + 1}, {'.'.join(map(str, key)) or 'whole'}: {first['msg']}; a gate's keys are {allowed}"
