"""The base class and the kinds of numbers of every part of the configuration's tree."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class ConfigSection(BaseModel):
    """A part of the tree. Stage dataclasses inside it inherit `extra="forbid"` (tested).

    Lax types on purpose: YAML 1.1 reads `3e-4` as text, and pydantic then makes the number of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
