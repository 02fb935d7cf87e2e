"""What the server counts, for Prometheus; labels of the counts are names from the schema, never texts."""

from __future__ import annotations

from collections.abc import Sequence

from llmal.extras import need
from llmal.serve.answer import Answer

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the latency histogram: the goals, 10 and 50 ms, are among them."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        names: of the classes.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        prometheus = need("prometheus_client", extra="serve", why="to count what a server does")
        self._registry = prometheus.CollectorRegistry()
        self._text = prometheus.generate_latest

        def counter(name: str, about: str, *labels: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return prometheus.Counter(f"llmal_{name}", about, labels, registry=self._registry)

        def gauge(name: str, about: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return prometheus.Gauge(f"llmal_{name}", about, registry=self._registry)

        self.requests = counter("requests", "Requests answered.", "path", "status")
        self.answers = counter("answers", "Texts answered, by who answers.", "route")
        self.labels = counter("labels", "Labels given by machines.", "route", "label")
        self.errors = counter("errors", "Failures, by what failed; none of them is a status 500.", "what")
        self.latency = prometheus.Histogram(
            "llmal_answer_seconds", "Seconds from a text to its answer, by who answers.", ["route"],
            buckets=BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self.calls = gauge("llm_calls", "Calls to the language model, over all starts.")
        self.dollars = gauge("llm_cost_dollars", "Their cost in dollars, over all starts.")
        self.waiting = gauge("queue_length", "Texts that wait for people.")
        self.drift = gauge("drift_evidence", "Evidence of drift as a share of what raises the alarm.")
        self.watched = gauge("drift_watched", "1 where drift is watched.")
        self.alarm = gauge("drift_alarm", "1 once an alarm went off: drift, or answers found wrong.")
        self.promised = gauge("certificate_valid", "1 while the certificate's promise stands.")
        self.right = gauge("checked_right", "Student's answers that people checked and found right.")
        self.checked = gauge("checked", "Student's answers that people checked.")
        for who in ("student", "llm", "person"):
            self.answers.labels(who)
            for name in names if who != "person" else ():
                self.labels.labels(who, name)

    def count(self, answer: Answer, seconds: float) -> None:
        """One text answered."""
        self.answers.labels(answer.route).inc()
        self.latency.labels(answer.route).observe(seconds)
        for name in answer.labels or () if answer.route != "person" else ():
            self.labels.labels(answer.route, name).inc()

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return bytes(self._text(self._registry))
