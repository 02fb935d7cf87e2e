"""The people of a run in words: a line each, how far they agree, and what their time came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmal.corpus import shown

WIDTH = 24
"""Characters of a name; whoever has a longer one is cut."""

PAIRS = 10
"""Pairs of people whose kappa is told one by one, the lowest first."""


def lines(crew: Mapping[str, Any]) -> list[str]:
    """What `llmal.review.people.crew` found, for a terminal; nothing where nobody said anything.

    Args:
        crew: people, minutes, shared, disputes, settled, alpha and kappa.
    """
    if not crew["people"]:
        return []
    found = [
        f"{'name':{WIDTH}} {'words':>6} {'minutes':>8} {'median s':>8}  agrees with the others",
        *(_line(person) for person in crew["people"]),
        f"{crew['minutes']:,.1f} minutes of people in all, as far as they were measured",
    ]
    found += together(crew)
    found += [f"in doubt: {shown(p['name'])}: {shown(p['warning'])}" for p in crew["people"] if p["warning"]]
    return found


def together(crew: Mapping[str, Any]) -> list[str]:
    """Agreement of all and of pairs, and what is open; nothing where no text has two words."""
    if not crew["shared"]:
        return []
    found = [
        f"{crew['shared']:,} texts were answered by two people or more; they differ on {crew['disputes']:,} "
        f"that nobody settled, and {crew['settled']:,} were settled"
    ]
    if crew["alpha"] is not None:
        found.append(f"Krippendorff's alpha {_measure(crew['alpha'])} (1 is full agreement, 0 is chance)")
    for pair in sorted(crew["kappa"], key=lambda k: float(k["value"]))[:PAIRS]:
        found.append(f"kappa of {_name(pair['a'])} and {_name(pair['b'])} {_measure(pair)}")
    return found


def _line(person: Mapping[str, Any]) -> str:
    seconds = "-" if person["median_seconds"] is None else f"{person['median_seconds']:.1f}"
    agrees = "-" if person["agreement"] is None else _measure(person["agreement"])
    settled = f", settled {person['settled']:,}" if person["settled"] else ""
    name = _name(person["name"])
    return f"{name:{WIDTH}} {person['words']:6,} {person['minutes']:8,.1f} {seconds:>8}  {agrees}{settled}"


def _name(name: str) -> str:
    return shown(name, limit=WIDTH)


def _measure(m: Mapping[str, Any]) -> str:
    return f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}], n = {m['n']:,}"
