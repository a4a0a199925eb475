"""The report: the content of `report.json`, with one verdict for every goal."""

from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.report_parts import Metric, ReportSection


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class SetDescription(_Part):
    """One of the sets. facts: {term: sentence} about where it comes from."""

    name: str
    num_cases: int
    phantom: bool
    facts: dict[str, str]


class EvaluatedPipeline(_Part):
    """The pipeline that drew the synthetic cases, as their manifest says.

    weights_sha256: Of each stage's weights, by stage.
    config_hash: Of the stages' configurations.
    dataset_digest: Of the prepared set that the stages were trained on.
    as_pinned: False where the cases were drawn otherwise than the pipeline draws by itself: with other sampling
        options, for given masks, or without the refiner.
    """

    name: str
    version: int
    weights_sha256: dict[str, str]
    config_hash: str
    dataset_digest: str
    as_pinned: bool = True

    @classmethod
    def of(cls, info: SyntheticSetInfo) -> "EvaluatedPipeline":
        """The pipeline that drew a synthetic set."""
        return cls(
            name=info.pipeline_name,
            version=info.pipeline_version,
            weights_sha256=info.weights_sha256,
            config_hash=info.config_hash,
            dataset_digest=info.dataset_digest,
            as_pinned=info.refined and info.masks_digest is None and not info.sampling,
        )


class Verdict(_Part):
    """The verdict on one metric and one goal.

    metric: Its name, or the pattern that fits none. `figure` in the file.
    goal: A sentence.
    ratio: The value in multiples of the floor.
    passed: None where the metric, or the floor that the goal is about, was not measured.
    """

    metric: Annotated[str, Field(alias="figure")]
    goal: str
    value: float | None
    floor: float | None
    ratio: float | None
    passed: bool | None


class Report(_Part):
    """`report.json`.

    spacing_mm: Voxel size along (D, H, W).
    real: The cases that the synthetic ones were compared with; the generators have not seen them.
    train: The cases that the generators have seen, as far as they were given.
    """

    schema_version: int = 2
    created: AwareDatetime
    code_version: str
    spacing_mm: tuple[float, float, float]
    real: SetDescription
    synthetic: SetDescription
    train: SetDescription | None
    pipeline: EvaluatedPipeline
    verdicts: list[Verdict]
    sections: list[ReportSection]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for names in ([section.name for section in self.sections], self.pictures):
            if len(set(names)) < len(names):
                raise ValueError(f"sections and pictures must have names of their own, got {names}")
        return self

    @property
    def phantom(self) -> bool:
        return self.real.phantom or self.synthetic.phantom

    @property
    def passed(self) -> bool:
        """True where there are goals and every one of them was measured and met."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    @property
    def metrics(self) -> list[Metric]:
        return [metric for section in self.sections for metric in section.metrics]

    @property
    def pictures(self) -> list[str]:
        """The pictures' file names, in the order of the page."""
        return [picture.file for section in self.sections for picture in section.pictures]
