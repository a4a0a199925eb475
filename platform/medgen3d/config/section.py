"""The base class of every part of the configuration's tree."""

from pydantic import BaseModel, ConfigDict


class ConfigSection(BaseModel):
    """A part of the tree. Stage dataclasses inside it inherit `extra="forbid"` (tested).

    Lax types on purpose: YAML 1.1 reads `3e-4` as text, and pydantic then makes the number of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
