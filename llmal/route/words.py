"""A certificate in sentences for people."""

from __future__ import annotations

from llmal.route.evidence import Evidence
from llmal.route.promise import Promise

MATTERS = 0.001
"""Accuracy lost at worst, because the easiest texts were picked, that is worth a sentence."""


def _among(made: Promise) -> str:
    return "the items accepted" if made.on == "accepted" else "all items, people's answers included"


def _wanted(made: Promise) -> str:
    return f"an accuracy of {made.target:.1%} among {_among(made)}"


def untested(made: Promise, evidence: Evidence, fewest: int) -> str:
    """Why no test was made, and what would be needed for one."""
    if evidence.withdrawn:
        return (
            f"The promise was withdrawn: {evidence.withdrawn}. People answer until audit items that are "
            f"reserved from now on carry a new one: raise audit.size by {fewest} or more."
        )
    return (
        f"Cannot certify {_wanted(made)}: people answered {made.audited} audit items, and about {made.more} "
        f"more are needed even if all are right. {_how(made, evidence)} No test was made, so nothing of "
        f"delta is spent."
    )


def _how(made: Promise, evidence: Evidence) -> str:
    wanted = made.audited + (made.more or 0)
    if evidence.reserved >= wanted:
        return f"Answer the audit items that wait ({evidence.reserved - made.audited}), with `llmal review`."
    return f"Set audit.size to about {wanted} and answer them with `llmal review`."


def words_of(made: Promise, evidence: Evidence) -> str:
    """The promise, or what it lacks."""
    if not made.holds:
        if made.more is None:
            why = f"{made.audited} audited items show it to be unlikely at any confidence. "
            why += "Lower route.target, or improve the student."
        else:
            why = f"about {made.more} more answers on audit items are needed ({made.audited} so far). "
            why += _how(made, evidence)
        return f"Cannot certify {_wanted(made)}: {why} Test number {made.issue} of this run."
    sure = "on average" if made.expected else f"with probability {1 - made.delta:.1%}"
    rest = f"{made.n} of {made.audited} audited items accepted"
    if not made.expected:
        rest += f"; test number {made.issue} of this run, at {made.spent:.2%}"
    known = ""
    if evidence.outside:
        known = f" {evidence.outside} items the student learnt from are outside the promise."
    bars = [(bar.label, bar.threshold) for bar in made.bars if bar.threshold is not None]
    if made.bars[0].label is None:
        start = f"At a student confidence of {bars[0][1]:.3f} or more, accuracy among {_among(made)} is"
        return f"{start} at least {made.bound:.1%} {sure} ({rest}).{known}{_at_worst(made, evidence)}"
    shown = ", ".join(f"{label} from {threshold:.3f}" for label, threshold in bars)
    none = len(made.bars) - len(bars)
    left = f" For {none} labels nothing can be certified." if none else ""
    return (
        f"For each of {len(bars)} labels the student answers ({shown}), accuracy among {_among(made)} is at "
        f"least {made.bound:.1%} {sure}, for all of them together ({rest}).{left}{known}"
    )


def _at_worst(made: Promise, evidence: Evidence) -> str:
    if made.at_worst is None or made.target - made.at_worst < MATTERS:
        return ""
    return (
        f" If the {evidence.taken} texts picked from the corpus were its easiest, it is {made.at_worst:.1%} "
        f"among those left."
    )
