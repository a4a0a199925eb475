"""The outcome of a piece of work as a value: its result, or the error of ours that ended it.

Ray wraps what a task raises into errors of its own; a value comes back from another process as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from medgen3d.core.errors import Medgen3dError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Generic[Result]):
    """The result, or the error; the other one is None."""

    result: Result | None = None
    error: Medgen3dError | None = None

    @classmethod
    def of(cls, work: Callable[..., Result], *arguments: Any) -> "Outcome[Result]":
        """Do the work. Errors that are not ours are bugs and are raised."""
        try:
            return cls(result=work(*arguments))
        except Medgen3dError as error:
            return cls(error=error)

    @property
    def sentence(self) -> str:
        """The error's; empty if there is a result."""
        return "" if self.error is None else str(self.error)

    def unwrap(self) -> Result:
        """The result.

        Raises:
            Medgen3dError: The error, if there is one.
        """
        if self.error is not None:
            raise self.error
        return cast("Result", self.result)
