"""The parts of a report: sections that hold metrics with floors and intervals, tables, and captions of pictures."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Cell = str | int | float | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Metric(_Part):
    """One measured number.

    name: What goals refer to, from the general to the particular: "fidelity.fid.axial".
    title: The same for people.
    value: None where it could not be measured; `note` then says why.
    floor: The same measure between real and real, with as many cases; None where there is no such thing.
    interval: (low, high) that holds 95 % of the resamples, or of the seeds.
    num: How many there were of what `num_of` names.
    unit: "mm", "voxels", ...; empty for a pure number.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+(\.[^.\s][^.]*)*$")
    title: str
    value: float | None
    floor: float | None = None
    interval: tuple[float, float] | None = None
    num: int
    num_of: str = "cases per side"
    unit: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.value is None and not self.note:
            raise ValueError(f"{self.name} has no value and no note that says why")
        return self

    @property
    def ratio(self) -> float | None:
        """The value in multiples of the floor; None where one of them is missing or the floor is 0."""
        return self.value / self.floor if self.value is not None and self.floor else None


class Table(_Part):
    """A table of the report. rows: One list per row, as long as `columns`; None is shown as a dash."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"the table {self.title!r} has rows that differ from its {len(self.columns)} columns")
        return self


class Picture(_Part):
    """A picture of the report.

    file: Name of the PNG in the report's folder.
    alt: What it shows, for those who cannot see it.
    """

    file: str = Field(pattern=r"^[a-z0-9_]+\.png$")
    caption: str
    alt: str


class ReportSection(_Part):
    """A part of the report.

    name: The first part of its metrics' names.
    about: What is measured and how to read it, in a few sentences.
    metrics: `figures` in the file.
    not_run: Why the section holds nothing; empty otherwise.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    about: str
    metrics: Annotated[list[Metric], Field(alias="figures")] = []
    tables: list[Table] = []
    pictures: list[Picture] = []
    not_run: str = ""

    @model_validator(mode="after")
    def _names_begin_with_its_own(self) -> Self:
        names = [metric.name for metric in self.metrics]
        wrong = [name for name in names if not name.startswith(f"{self.name}.")]
        if wrong or len(set(names)) < len(names):
            raise ValueError(f"section {self.name}: metrics must be unique and begin with its name, got {names}")
        return self
