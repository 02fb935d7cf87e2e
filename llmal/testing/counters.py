"""What FakeLM received, answered and charged: the truth a test compares llmal's own report with."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from llmal.testing.chat import Ask, Usage

WHOLE = Fraction(1)


class Bill(NamedTuple):
    """One charged request: item, attempt, picodollars, and the kind of its fault or "ok"."""

    item: str
    attempt: int
    picodollars: int
    kind: str


class Counters:
    """Counts of one server, safe to read from any thread while it serves.

    Whatever a client can have seen has been counted before its first byte left. Every property is a copy:
    take it once, not once per item.

    Args:
        price: picodollars (1e-12 dollars) per input and per output token; None: everything costs 0.
        keep: most requests and most bills remembered, the latest; counts and totals cover all.
    """

    def __init__(self, *, price: tuple[int, int] | None, keep: int) -> None:
        self._price = price or (0, 0)
        self._keep = keep
        self._changed = threading.Condition()
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forgets all requests: counts, bills and the attempt number of every item start again."""
        with self._changed:
            self._n_requests = self._bill = 0
            self._in_flight_peak = self._in_flight
            self._counts: Counter[str] = Counter()
            self._answered: Counter[str] = Counter()
            self._statuses: Counter[int] = Counter()
            self._keys_seen: Counter[str] = Counter()
            self._requests: deque[Ask] = deque(maxlen=self._keep)
            self._bills: deque[Bill] = deque(maxlen=self._keep)
            self._swapped: list[tuple[str, str]] = []
            self._errors: list[Exception] = []

    @property
    def n_requests(self) -> int:
        """Chat requests received, those refused because of their key or a malformed body left out."""
        return self._n_requests

    @property
    def counts(self) -> Counter[str]:
        """Item id -> chat requests received."""
        with self._changed:
            return self._counts.copy()

    @property
    def answered(self) -> Counter[str]:
        """Item id -> chat requests answered with status 200 and a whole chat completion."""
        with self._changed:
            return +self._answered

    @property
    def statuses(self) -> Counter[int]:
        """HTTP status -> answers to chat requests; 0: no answer left (reset, or the client went away)."""
        with self._changed:
            return self._statuses.copy()

    @property
    def keys_seen(self) -> Counter[str]:
        """API key, or "" without one -> requests that carried it, to any path below /v1."""
        with self._changed:
            return self._keys_seen.copy()

    @property
    def requests(self) -> list[Ask]:
        """The latest chat requests, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def bills(self) -> list[Bill]:
        """The latest charged requests, oldest first; those that a fault left uncharged are not in it."""
        with self._changed:
            return list(self._bills)

    @property
    def bill(self) -> int:
        """Picodollars charged for all requests."""
        return self._bill

    @property
    def in_flight_peak(self) -> int:
        """Most chat requests the server held at one time; without latency it is done with each at once."""
        return self._in_flight_peak

    @property
    def swapped(self) -> list[tuple[str, str]]:
        """Pairs of item ids whose answers were exchanged."""
        with self._changed:
            return list(self._swapped)

    @property
    def errors(self) -> list[Exception]:
        """What the brain or `identify` raised, other than `Rejection`; the client saw a status 500."""
        with self._changed:
            return list(self._errors)

    def wait_for(self, n_requests: int, timeout_s: float) -> None:
        """Blocks until so many chat requests were received since the start or the last reset.

        Args:
            n_requests: count.
            timeout_s: seconds.

        Raises:
            TimeoutError: fewer came in time; says how many.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._n_requests >= n_requests, timeout_s):
                raise TimeoutError(f"{self._n_requests} of {n_requests} requests in {timeout_s} s")

    def snapshot(self) -> dict[str, Any]:
        """All counters, ready for JSON."""
        with self._changed:
            return {
                "n_requests": self._n_requests,
                "counts": dict(self._counts),
                "answered": dict(+self._answered),
                "statuses": {str(status): n for status, n in self._statuses.items()},
                "in_flight_peak": self._in_flight_peak,
                "bill": self._bill,
                "bills": list(self._bills),
                "swapped": list(self._swapped),
                "errors": [repr(error) for error in self._errors],
            }

    def note_open(self) -> None:
        """A chat request began; this and the other `note_` methods are for the server."""
        with self._changed:
            self._in_flight += 1
            self._in_flight_peak = max(self._in_flight_peak, self._in_flight)

    def note_closed(self) -> None:
        """A chat request ended, one way or another."""
        with self._changed:
            self._in_flight -= 1

    def note_key(self, key: str) -> None:
        """A request carried this API key."""
        with self._changed:
            self._keys_seen[key] += 1

    def note_request(
        self, item: str, messages: tuple[Mapping[str, Any], ...], body: Mapping[str, Any]
    ) -> Ask:
        """A chat request for this item is here; returns it with its attempt and number."""
        with self._changed:
            self._n_requests += 1
            self._counts[item] += 1
            ask = Ask(
                messages, str(body.get("model")), body, item, self._counts[item], number=self._n_requests
            )
            self._requests.append(ask)
            self._changed.notify_all()
            return ask

    def note_status(self, status: int) -> None:
        """An answer is about to leave with this status; 0: none left."""
        with self._changed:
            self._statuses[status] += 1

    def note_answered(self, item: str, by: int) -> None:
        """A whole chat completion is about to leave (1), or could not (-1)."""
        with self._changed:
            self._answered[item] += by

    def note_charge(self, ask: Ask, usage: Usage, kind: str, *, share: Fraction = WHOLE) -> None:
        """A request is charged, at this share of the price."""
        cost = int(share * (usage.prompt * self._price[0] + usage.completion * self._price[1]))
        with self._changed:
            self._bill += cost
            self._bills.append(Bill(ask.item, ask.attempt, cost, kind))

    def note_swap(self, item: str, other: str) -> None:
        """The answers of two items were exchanged."""
        with self._changed:
            self._swapped.append((item, other))

    def note_error(self, error: Exception) -> None:
        """The test's own code raised."""
        with self._changed:
            self._errors.append(error)
