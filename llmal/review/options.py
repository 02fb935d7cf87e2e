"""The `review:` part of a pipeline file: whether people choose from short lists, and how short."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmal.records import recipe

Share = Annotated[float, Field(ge=0, lt=1)]


class ReviewSpec(BaseModel):
    """Candidate sets: the few labels that a person is shown first, made of the student's probabilities.

    Source: Gwon et al. 2025 (Candidate Set Query); see `llmal.review.candidates`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    candidates: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: short lists where the audit sample shows that they save work"
    )
    miss: tuple[Share, ...] = Field(
        (0.05, 0.1, 0.2),
        min_length=1,
        strict=False,
        description="shares of short lists that may lack the right label; the cheapest of these is taken",
    )
    by_class: bool = Field(
        False, description="hold the share for each label; one with few answers then stands on every list"
    )

    def recipe(self) -> str:
        """Hash of all of it."""
        return recipe("review", self)
