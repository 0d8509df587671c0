"""The base of every config model: strict, frozen, and unknown keys are errors."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen, strictly typed group of settings; an unknown key or a wrong type is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
