"""What a person says on the page, as it arrives, and what is answered where it cannot be taken."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmal.text import repaired


class Said(BaseModel):
    """One thing a person did, as the page sends it; sent again word for word, it adds nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(pattern="^[0-9a-f]{32}$", description="made by the page for this one deed")
    item: int = Field(ge=0, lt=2**53, description="the item's number")
    what: Literal["answer", "skip", "unsure", "undo", "flag", "unflag", "adjudicate"]
    labels: list[str] = Field([], max_length=10_000, description="of an answer; any order")
    note: str = Field("", max_length=20_000, description="a comment; of a flag, why")
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False, description="that the text was looked at")
    full: bool = Field(True, description="whether all labels were in sight, not a short list alone")
    of: str = Field("", pattern="^(|[0-9a-f]{32})$", description="of an undo: the id of what is taken back")
    have: list[int] = Field([], max_length=200, description="items the page holds already")

    @field_validator("note", mode="before")
    @classmethod
    def _note(cls, given: Any) -> Any:
        """Half a character, as a browser may send it, loses no answer."""
        return repaired(given)[0] if isinstance(given, str) else given


class Refusal(Exception):
    """What cannot be taken: its status, and why in one sentence."""

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        super().__init__(words)
