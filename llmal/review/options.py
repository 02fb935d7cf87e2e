"""The `review:` part of a pipeline file: what people are shown, in which order, and how many see the same."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmal.records import recipe

Share = Annotated[float, Field(ge=0, lt=1)]

SETS = frozenset({"candidates", "miss", "by_class"})
"""What candidate sets depend on; the other options change what people see, and no set."""


class ReviewSpec(BaseModel):
    """How people review: candidate sets, the machine's answer beside the text or not, order, and overlap.

    Candidate sets are the few labels that a person is shown first, made of the student's probabilities.

    Source: Gwon et al. 2025 (Candidate Set Query); see `llmal.review.candidates`. For `order` see
        `llmal.review.order`.
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
    show: Literal["blind", "assisted"] = Field(
        "blind",
        description="blind: the machine's answer shows after one's own; assisted: beside the text (never for "
        "items that measure)",
    )
    order: Literal["value", "doubt"] = Field(
        "value",
        description="value: most expected corrections a minute first; doubt: the least sure first",
    )
    overlap: float = Field(
        0.1, ge=0, le=1, description="share of the items that several people answer, where there are several"
    )
    people: int = Field(2, ge=2, le=100, description="people who answer each of the items of `overlap`")
    guidelines: str | None = Field(
        None,
        min_length=1,
        description="text file that stands beside the texts; the annotator's own prompt when absent",
    )

    def recipe(self) -> str:
        """Hash of what candidate sets depend on."""
        return recipe("review", self.model_dump(mode="json", include=set(SETS)))
