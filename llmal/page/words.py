"""How numbers and texts of a report are written for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

CERTIFICATE = {
    "valid": "Certificate",
    "refused": "No certificate yet",
    "withdrawn": "Certificate withdrawn",
    "none": "No certificate",
}

_JOINERS = "\u200c\u200d"
"""Invisible, but part of how Persian, Hindi and some emoji are spelt; they reorder nothing."""

_STACKED = 3
"""Combining marks on one letter; more of them only smear over the lines above and below."""

_WHO = {
    "student": "classifier",
    "accepted": "machine labels",
    "annotator": "annotator",
}
_WHAT = {
    "ece": "calibration error (ECE)",
    "calibrated_ece": "calibration error, calibrated (ECE)",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "f1": "F1",
    "kappa": "Cohen's kappa",
    "coverage": "share of texts answered by machines",
}
_WHOLE = {
    "candidates.bits": "short lists: bits an answer costs a person",
    "candidates.coverage": "short lists: the right label is among them",
    "candidates.saving": "short lists: saved of what an answer costs",
}
_HOW = {"powered": " (prediction-powered)", "active": " (active testing)"}


def seen(text: Any, limit: int = 200) -> str:
    """A text of the data on one line, cut to `limit`; what is invisible or reorders is made visible."""
    flat = " ".join(str(text)[: 4 * limit].split())
    return _cut("".join(_visible(flat)), limit)


def block(text: str) -> str:
    """As `seen`, for several lines, uncut."""
    return "\n".join("".join(_visible(line)) for line in text.split("\n"))


def _visible(text: str) -> list[str]:
    out, stacked = [], 0
    for c in text:
        stacked = stacked + 1 if unicodedata.combining(c) else 0
        if stacked <= _STACKED:
            out.append(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}")
    return out


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def coded(text: Any) -> Markup:
    """Words in which `backticks` mark code, as HTML; everything else in them is text."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # an odd mark out: no code at all
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def percent(x: float) -> str:
    """A share as per cent with one digit, less where that says nothing."""
    return f"{100 * x:.1f} %" if 0 < x < 1 else f"{100 * x:.0f} %"


def number(x: float, digits: int = 3) -> str:
    """A number without needless zeros."""
    return f"{x:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{x:.0f}"


def count(n: int) -> str:
    """Digits in groups of three."""
    return f"{n:,}"


def money(usd: float | None) -> str:
    """Dollars; more digits for less than a cent, and a word where the model is one's own."""
    if usd is None:
        return "local"
    if 0 < usd < 0.0001:
        return "< $0.0001"
    return f"${usd:,.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.4f}"


def value(m: Mapping[str, Any]) -> str:
    """The value of a measure; a dash where it is undefined."""
    return _scaled(m["value"], m)


def interval(m: Mapping[str, Any]) -> str:
    """Its interval; one-sided where only one end is known."""
    low, high = m["low"], m["high"]
    if low is None and high is None:
        return "–"
    if low is None or high is None:
        return f"at least {_scaled(low, m)}" if high is None else f"at most {_scaled(high, m)}"
    return f"{_scaled(low, m).removesuffix(' %')} to {_scaled(high, m)}"


def _scaled(x: float | None, m: Mapping[str, Any]) -> str:
    if x is None:
        return "–"
    return percent(x) if m.get("share", True) else f"{x:.3f}"


def spelt(name: str) -> str:
    """The name of a measure in words: `student.macro_f1` is `classifier: macro-F1`."""
    if name in _WHOLE:
        return _WHOLE[name]
    who, dot, what = name.partition(".")
    if not dot:
        return _WHAT.get(who, who.replace("_", " "))
    what, _, how = what.partition(".")
    how = _HOW.get(how, f" ({how})" if how else "")
    return f"{_WHO.get(who, who)}: {_WHAT.get(what, what.replace('_', ' '))}{how}"
