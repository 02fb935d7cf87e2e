"""Who answers a text: the student where it may, else the language model where that may, else a person."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmal.corpus import text_key
from llmal.records import Labels, Route
from llmal.serve.answer import Answer
from llmal.serve.drift import Drift
from llmal.serve.judge import Judge
from llmal.serve.llm import LlmTier
from llmal.serve.metrics import Metrics
from llmal.serve.options import Options
from llmal.serve.promise import Terms
from llmal.serve.queue import Kept, Queue
from llmal.serve.student import Busy, Reading, Student
from llmal.stats.watch import accuracy_alarm

LOOK_EVERY_S = 2.0
"""Seconds between two looks for people's answers."""

SAVE_EVERY_S = 30.0
"""Seconds between two times the watch over drift is kept: what a crash can take from it."""


ANSWERED = "a person answered this text"


class Tiers(NamedTuple):
    """Who can answer, and by what they are judged; `llm` and `judge` are None without a language model."""

    student: Student
    llm: LlmTier | None
    judge: Judge | None


class Cascade:
    """Answers texts. Used from one event loop.

    Args:
        tiers: who can answer.
        terms: under which.
        queue: the serving store.
        drift: the watch, None where the export has nothing to compare with.
        metrics: what is counted.
        options: of the server.
    """

    def __init__(
        self,
        tiers: Tiers,
        terms: Terms,
        queue: Queue,
        drift: Drift | None,
        metrics: Metrics,
        options: Options,
    ) -> None:
        self.tiers, self.terms, self.queue, self.drift = tiers, terms, queue, drift
        self.metrics, self.options = metrics, options
        self.withdrawn = terms.ended or queue.withdrawn()
        self._open: dict[str, asyncio.Task[Answer]] = {}
        self._beside: set[asyncio.Task[Any]] = set()
        self._watching: asyncio.Task[None] | None = None

    @property
    def promised(self) -> bool:
        """Whether a promise stands."""
        return self.terms.promise is not None and not self.terms.partial and self.withdrawn is None

    async def open(self) -> None:
        """Load the student, and what asks the language model; then look for people's answers now and then."""
        await self.tiers.student.open()
        if self.tiers.llm is not None:
            await self.tiers.llm.warm()
        self._watching = asyncio.create_task(self._watch())

    async def answers(self, texts: Sequence[str]) -> list[Answer]:
        """Who answers each text, and what. No trouble with a model raises: then the next tier is asked.

        The student reads one text after another, so that long requests and short ones take turns there; what
        comes after it goes on side by side.

        Raises:
            Busy: more is sent than can be answered.
        """
        tasks = []
        for text in texts:
            started = time.perf_counter()
            known = self.queue.answered.get(text_key(text)) if self.queue.answered else None
            reading = await self._read(text) if known is None else None
            tasks.append(asyncio.create_task(self._answer(text, reading, known, started)))
            self._beside.add(tasks[-1])  # goes on where a later text of the request ends it
            tasks[-1].add_done_callback(self._beside.discard)
        return list(await asyncio.gather(*tasks))

    async def _read(self, text: str) -> Reading | None:
        try:
            return await self.tiers.student.read(text)
        except Busy:
            raise
        except Exception as error:  # whatever a tokenizer or a runtime raises on a text made to break it
            self._failed("student", error)
            return None

    async def _answer(
        self, text: str, reading: Reading | None, known: Labels | None, started: float
    ) -> Answer:
        if known is not None:
            answer = Answer("person", known, None, ANSWERED)
        elif reading is None:
            answer = await self._deferred(text, None, "the student failed on this text")
        else:
            answer = await self._judged(text, reading)
        if answer.route != "person" and (answer.promised or self.terms.promise is None):
            self._check(text, answer)
        self.metrics.count(answer, time.perf_counter() - started)
        return answer

    async def _judged(self, text: str, reading: Reading) -> Answer:
        """The student's answer where it may give one, else the next tier's."""
        if self.drift is not None and self.withdrawn is None:
            await self._count(text, reading)
        ended = ""
        if self.withdrawn is not None:
            ended = f"{'the promise is withdrawn' if self.terms.promise else 'drift'}: {self.withdrawn}"
        bar = self.terms.bar("student", reading.labels)
        sure = bar is not None and reading.confidence >= bar
        if sure and (not ended or self.options.on_drift == "warn"):
            reason = f"student {reading.confidence:.4f} >= {bar:.4f}"
            reason = f"{reason}; {ended}" if ended else reason
            return Answer("student", reading.labels, reading.confidence, reason, self.promised)
        below = "and nothing says from where it may answer" if bar is None else f"< {bar:.4f}"
        return await self._deferred(text, reading, ended or f"student {reading.confidence:.4f} {below}")

    async def _deferred(self, text: str, reading: Reading | None, why: str) -> Answer:
        """The answer of whoever comes after the student; asked twice at once, a text is asked about once."""
        key = text_key(text)
        task = self._open.get(key)
        if task is None:
            task = self._open[key] = asyncio.create_task(self._next(text, key, reading, why))
            task.add_done_callback(lambda _: self._open.pop(key, None))
        return await asyncio.shield(task)  # a client that leaves does not leave a text half kept

    async def _next(self, text: str, key: str, reading: Reading | None, why: str) -> Answer:
        guess = reading.labels if reading is not None else None
        confidence = reading.confidence if reading is not None else None
        try:
            kept = await self.queue.find(key)
            if kept is not None and kept.answered is not None:
                return Answer("person", kept.answered, None, ANSWERED)
            if kept is not None and kept.route is not None:
                return self._again(kept.route, key, guess, confidence)
            if self.tiers.llm is not None:
                found, why = await self._asked(text, key, kept, why)
                if found is not None:
                    return found
                kept = await self.queue.find(key)
            return await self._to_people(
                text, key, kept, Answer("person", None, confidence, why, guess=guess)
            )
        except Exception as error:  # a full disk: nothing was kept, and nothing is said to be
            self._failed("store", error)
            return Answer("person", None, confidence, f"{why}; the queue could not be written", guess=guess)

    def _again(self, route: Route, key: str, guess: tuple[str, ...] | None, sure: float | None) -> Answer:
        """The answer a text got before: the same text, the same route."""
        if route.who == "llm":
            # The route's reason was written under the same terms; only their end may have come since.
            promised = self.promised and self.terms.promises_llm
            return Answer("llm", route.labels, route.confidence, route.reason, promised)
        return Answer("person", None, sure, route.reason, guess=guess, queued=key)

    async def _asked(self, text: str, key: str, kept: Kept | None, why: str) -> tuple[Answer | None, str]:
        """The language model's answer where it stands, else why not."""
        assert self.tiers.llm is not None
        assert self.tiers.judge is not None
        item = await self.queue.keep(text, key)
        said = await self.tiers.llm.ask(item)
        if said.annotation is None:
            self.metrics.errors.labels("llm").inc()
            return None, f"{why}; {said.why}"
        verdict = await asyncio.to_thread(self.tiers.judge.verdict, said.annotation)
        if not verdict.stands:
            return None, f"{why}; {verdict.reason}"
        route = Route(item.seq, "llm", said.annotation.labels, verdict.confidence, f"{why}; {verdict.reason}")
        await self.queue.route(text, key, Kept(item.seq, None, None), route)
        promised = verdict.promised and self.promised
        return Answer("llm", route.labels, route.confidence, route.reason, promised), ""

    async def _to_people(self, text: str, key: str, kept: Kept | None, answer: Answer) -> Answer:
        """The same answer, with the id under which the text waits once that is on disk."""
        if not self.options.queue:
            return answer
        if self.queue.full:
            self.metrics.errors.labels("queue full").inc()
            return answer._replace(reason=f"{answer.reason}; the queue for people is full")
        route = Route(-1, "person", answer.guess or (), answer.confidence, answer.reason)
        return answer._replace(queued=await self.queue.route(text, key, kept, route))

    def _check(self, text: str, answer: Answer) -> None:
        """Show people a random share of what machines answer, beside the client's way."""
        share = self.options.check_share
        if not share or self.queue.full or not self.queue.drawn(text, share):
            return
        key = text_key(text)
        route = Route(-1, answer.route, answer.labels or (), answer.confidence, answer.reason)
        task = asyncio.create_task(self._checked(text, key, route))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _checked(self, text: str, key: str, route: Route) -> None:
        try:
            await self.queue.check(text, key, route)
        except Exception as error:
            self._failed("store", error)

    async def _count(self, text: str, reading: Reading) -> None:
        assert self.drift is not None
        reason = self.drift.add(text, reading)
        if reason is not None:
            await self._withdraw(reason)

    async def _withdraw(self, reason: str) -> None:
        """End the promise: at once for every answer from now on, and on disk for those after a restart."""
        if self.withdrawn is not None:
            return
        self.withdrawn = reason
        sys.stderr.write(f"serve: the promise is withdrawn: {reason}\n")
        try:
            await self.queue.withdraw(reason)
        except Exception as error:
            self._failed("store", error)

    async def _watch(self) -> None:
        """Look for people's answers, and keep the watch over drift, until the server stops."""
        saved = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
                if self.drift is not None and time.monotonic() - saved >= SAVE_EVERY_S:
                    saved = time.monotonic()
                    await asyncio.to_thread(self.drift.keep, self.drift.state())
            except Exception as error:
                self._failed("store", error)

    async def look(self) -> None:
        """Take note of people's answers; those about checked texts tell whether the promise is kept."""
        if not await asyncio.to_thread(self.queue.look):
            return
        right = await asyncio.to_thread(self.queue.checked)
        self.metrics.right.set(sum(right))
        self.metrics.checked.set(len(right))
        promise = self.terms.promise
        # What is promised of everything says little about machines' answers alone.
        if promise is None or promise.on != "accepted" or not self.promised or not right:
            return
        # A third of the rate: two thirds are the watch over drift's.
        alarm = accuracy_alarm(right, target=promise.target, alpha=self.options.alarm_rate / 3)
        if alarm.at is not None:
            n = alarm.at + 1
            await self._withdraw(f"people found {n - sum(right[:n])} of {n} checked answers wrong")

    def _failed(self, what: str, error: Exception) -> None:
        """Count a failure. Its message may repeat a text, so only its kind is told."""
        self.metrics.errors.labels(what).inc()
        sys.stderr.write(f"serve: {what}: {type(error).__name__}\n")

    async def close(self, grace_s: float) -> None:
        """Finish what is under way, within the grace period, and keep the rest."""
        if self._watching is not None:
            self._watching.cancel()
        if self.tiers.llm is not None:
            await self.tiers.llm.close(grace_s)
        if under_way := [*self._open.values(), *self._beside]:
            await asyncio.wait(under_way, timeout=grace_s)
        if self.drift is not None:
            self.drift.keep(self.drift.state())
        await asyncio.to_thread(self.tiers.student.close)
        self.queue.close()
