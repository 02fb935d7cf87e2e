"""What a compilation would take, and what it came to, for people to read."""

from __future__ import annotations

from typing import Any

from llmal.errors import UserError
from llmal.tune.gain import Gain


def estimate_text(found: dict[str, Any]) -> str:
    """What a compilation would take, for people, before it is paid."""
    n, usd, caps = found["split"], found["estimate"]["usd"], found["caps"]
    money = "no money is counted" if usd is None else f"about ${usd:.4f} at the present prompt's length"
    left = [f"{caps['calls']} calls"] if caps["calls"] is not None else []
    left += [f"${caps['usd']:.4f}"] if caps["usd"] is not None else []
    return (
        f"{found['use']}: learns from {n['optimise']} answers of people, chooses on {n['validate']}, "
        f"is judged on {n['report']}\n"
        f"at most about {found['estimate']['calls']:,} calls, {money}; answers kept already cost nothing\n"
        f"cap: {' and '.join(left) or 'none; set --usd or --calls, or `budget` in the file'}"
    )


def outcome_text(found: dict[str, Any]) -> str:
    """What a compilation came to, for people."""
    if found.get("dry"):
        return estimate_text(found) + "\nnothing was asked, nothing was changed"
    lines = [f"{'kept' if found['kept'] else 'not kept'}: {found['why']}"]
    for name in ("validate", "report"):
        if found[name] is not None:
            lines.append(f"{name:9} {Gain(**found[name]).words()}")
    usd = found["cost"]["usd"]
    lines.append(f"paid      {found['calls']} calls" + ("" if usd is None else f", ${usd:.4f}"))
    if found["state"]:
        lines.append(f"state     {found['state']}")
    if found["add"]:
        lines.append(f"add under annotate in the pipeline file: {found['add']}")
    if found["kept"]:
        lines.append(
            f"the run goes on under the new prompt: {found['asked_again']:,} questions answered so far would "
            "be asked again, one call each (see `llmal plan`); the old answers stay, and "
            "`llmal compile --revert` puts the old prompt back"
        )
    return "\n".join([*lines, *found["notes"]])


def settings(given: list[str]) -> dict[str, Any]:
    """Options of an optimiser from NAME=VALUE.

    Raises:
        UserError: one has no such form.
    """
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.strip():
            raise UserError(
                f"'{one}' is not NAME=VALUE", where="--set", hint="For example --set candidates=8"
            )
        found[name.strip()] = value.strip()
    return found


def shares(given: str) -> list[float]:
    """Three shares from text such as 0.3,0.35,0.35.

    Raises:
        UserError: these are no numbers.
    """
    try:
        return [float(part) for part in given.split(",")]
    except ValueError as error:
        raise UserError(
            f"'{given}' is not three numbers", where="--share", hint="For example --share 0.3,0.35,0.35"
        ) from error
