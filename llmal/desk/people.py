"""How well people agree, told to whoever labels: counted anew at most every few seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

from llmal.desk.queue import Desk

KEPT_S = 5.0
"""Seconds for which what was counted is told again."""

REST = 20.0
"""Times the length of a count that passes before the next: pages that ask all the time cost one in twenty."""

RESAMPLES = 400
"""Of the items, for the intervals: their ends move by a few per cent of the width, and people wait less."""


class People:
    """Agreement as the words of a desk's run have it.

    Args:
        desk: whose run it is.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._until = 0.0
        self._found: dict[str, Any] = {}

    def told(self, _: str) -> dict[str, Any]:
        """The same for every person on the desk, in numbers that the run's report gives, too."""
        from llmal.review.people import crew

        # Who asks while it is counted gets what was counted before: answers wait behind nobody's figures.
        if self._lock.acquire(blocking=not self._found):
            try:
                if (began := time.monotonic()) >= self._until:
                    desk = self._desk
                    self._found = crew(
                        desk.source.store, desk.schema, people=desk.people, resamples=RESAMPLES
                    )
                    now = time.monotonic()
                    self._until = now + max(KEPT_S, REST * (now - began))
            finally:
                self._lock.release()
        return {**self._found, "overlap": self._desk.overlap()}
