"""Problems of cases, and the one error that carries everything that was found."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from medgen3d.core.errors import DataError

Kind = Literal[
    "missing partner",
    "duplicate case",
    "unsafe path",
    "unreadable file",
    "shape mismatch",
    "spacing mismatch",
    "affine mismatch",
    "NaN or infinity",
    "constant intensity",
    "outside the window",
    "not in Hounsfield units",
    "unknown orientation",
    "non-integer labels",
    "undeclared labels",
    "empty mask",
    "unlabelled voxels",
    "lost on the grid",
    "too few slices",
]


class CaseProblem(BaseModel):
    """One row of the table of problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    kind: Kind
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"case {self.case}: {self.kind}: found {self.found}, expected {self.expected}. {self.remedy}"


class BadCasesError(DataError):
    """Some cases cannot be used; nothing was written. args: (list of CaseProblem, number of cases in the source)."""

    @property
    def problems(self) -> list[CaseProblem]:
        return self.args[0]

    @property
    def num_cases(self) -> int:
        """All cases of the source, good and bad."""
        return self.args[1]

    def __str__(self) -> str:
        num_bad = len({problem.case for problem in self.problems})
        return (
            f"{len(self.problems)} problems in {num_bad} of {self.num_cases} cases, so nothing was written; "
            f"the first: {self.problems[0]} Mend them, or leave these cases out with --skip-bad."
        )
