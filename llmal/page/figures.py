"""The figures of a report: drawn by Matplotlib as SVG that takes its colours from the page.

No figure holds a text of the data: labels stand in the page's own tables and legends, where they are escaped.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins that Matplotlib draws with; in the SVG they become the page's variables, light or dark.
INK, MUTED, GRID, ACCENT, SECOND = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", SECOND: "second"}

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#a6a03a", "#8c6bb1", "#7a5230")
"""Colours that differ for colour-blind readers too, on white and on black (after Okabe & Ito 2008)."""

OTHERS = "#8a8f98"
"""Of labels beyond the palette, and of none."""

MARKS = {"human": "P", "llm": "o", "student": "^", "open": "x"}
"""Who gave the label -> Matplotlib's marker."""

WIDTH_IN, HEIGHT_IN = 4.7, 3.3
"""Inches: on a phone the figure is as wide as the page, and its letters are still 9 points."""

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_LONG = re.compile(r"(\d+\.\d{2})\d+")


def figures(found: dict[str, Any]) -> dict[str, str]:
    """Name -> SVG, for every figure there are facts for."""
    drawn = {}
    with _plain():
        for name, draw, ready in (
            ("learning", _learning, bool(found["learning"]["points"]) or found["learning"]["final"]),
            ("risk", _risk, found["risk_coverage"]),
            ("reliability", _reliability, found["reliability"]),
            ("map", _map, found["map"]),
        ):
            if ready:
                drawn[name] = _drawn(name, draw, found, square=name == "map")
    return drawn


def _plain() -> AbstractContextManager[None]:
    """Matplotlib as it is delivered, whatever the user's own settings; nothing of ours stays behind."""
    import matplotlib

    ours = {
        "svg.hashsalt": "llmal",
        "svg.fonttype": "path",
        "font.family": ["DejaVu Sans"],
        "font.size": 9.0,
        "text.usetex": False,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "path.simplify": False,
    }
    skip = ("backend", "backend_fallback", "interactive", "toolbar", "timezone")
    shipped: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in skip}
    return matplotlib.rc_context(shipped | ours)


def _drawn(
    name: str, draw: Callable[[Axes, dict[str, Any]], None], found: dict[str, Any], square: bool
) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    height = WIDTH_IN * 0.92 if square else HEIGHT_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.135, 0.5 / height, 0.82, 1 - 0.62 / height))
    draw(axes, found)
    out = io.BytesIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(out.getvalue(), name)


def _for_page(svg: bytes, name: str) -> str:
    """The SVG without what a page does not need, its ids its own, its colours the page's."""
    root = ET.fromstring(svg)  # written by Matplotlib a moment ago; comments are gone already
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}style", f"{_SVG}metadata"):
                parent.remove(child)
    for node in root.iter():
        node.tag = str(node.tag).removeprefix(_SVG)
        node.attrib = dict(_attribute(key, value, name) for key, value in node.attrib.items())
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("aria-hidden", "true")
    text = ET.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    if key == "id":
        return key, f"{name}-{value}"
    if key == _HREF:
        return "href", f"#{name}-{value[1:]}" if value.startswith("#") else value
    if key in ("d", "x", "y"):
        return key, _LONG.sub(r"\1", value)
    return key, value.replace("url(#", f"url(#{name}-")


def _percent(axes: Axes, *, x: bool, y: bool = True) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if wanted:
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _floor(lows: list[float]) -> float:
    """A round share below all that is drawn, so that the curve fills the figure and no axis is cut unseen."""
    return max(0.0, int(min(lows) * 10) / 10 - 0.02)


def _learning(axes: Axes, found: dict[str, Any]) -> None:
    points, final = found["learning"]["points"], found["learning"]["final"]
    _dots(axes, [p["labels"] for p in points], points, ACCENT, "o", "-")
    if final:
        _dots(axes, [final["labels"]], [final], SECOND, "D", "none")
    every = [*points, *([final] if final else [])]
    axes.set_ylim(_floor([p["low"] for p in every]), 1.01)
    axes.set_xlim(left=0, right=1.06 * max(p["labels"] for p in every))
    _percent(axes, x=False)
    axes.set_xlabel("labels learnt from")
    axes.set_ylabel("accuracy")


def _risk(axes: Axes, found: dict[str, Any]) -> None:
    points, chosen = found["risk_coverage"]["points"], found["risk_coverage"]["threshold"]
    x = [p["coverage"] for p in points]
    axes.fill_between(
        x, [p["low"] for p in points], [p["high"] for p in points], color=ACCENT, alpha=0.18, linewidth=0
    )
    axes.plot(x, [p["value"] for p in points], color=ACCENT, linewidth=1.8)
    if chosen and chosen["n"]:
        axes.axvline(chosen["coverage"], color=SECOND, linewidth=1.2, linestyle="--")
        axes.plot(
            [chosen["coverage"]], [chosen["value"]], marker="D", color=SECOND, markersize=7, clip_on=False
        )
    # The first few items have intervals down to 0: they are drawn, and need not be seen whole.
    settled = [p["low"] for p in points if p["n"] >= 10] or [p["low"] for p in points]
    axes.set_ylim(_floor(settled), 1.01)
    axes.set_xlim(0, 1.0)
    _percent(axes, x=True)
    axes.set_xlabel("share of texts answered")
    axes.set_ylabel("accuracy of these answers")


def _reliability(axes: Axes, found: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--")
    _dots(axes, [b["confidence"] for b in found["reliability"]], found["reliability"], ACCENT, "o", "-")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    _percent(axes, x=True)
    axes.set_xlabel("confidence of the classifier")
    axes.set_ylabel("share that is right")


def _dots(axes: Axes, x: list[float], some: list[dict[str, Any]], colour: str, mark: str, line: str) -> None:
    """Values with their intervals."""
    y = [e["value"] for e in some]
    below, above = [e["value"] - e["low"] for e in some], [e["high"] - e["value"] for e in some]
    look: dict[str, Any] = {"color": colour, "marker": mark, "linestyle": line, "markersize": 6}
    axes.errorbar(x, y, yerr=[below, above], linewidth=1.8, elinewidth=1.2, capsize=3, **look)


def shade(label: int, shown: list[int]) -> str:
    """Colour of a label on the map, for the figure and for the page's legend alike."""
    return PALETTE[shown.index(label)] if label in shown else OTHERS


def shown_labels(found: dict[str, Any]) -> list[int]:
    """The labels that get a colour of their own: the commonest on the map, in the order of the columns."""
    sizes: dict[int, int] = {}
    for _, _, label, _ in found["map"]["points"]:
        if label >= 0:
            sizes[label] = sizes.get(label, 0) + 1
    return sorted(sorted(sizes, key=lambda c: (-sizes[c], c))[: len(PALETTE)])


def _map(axes: Axes, found: dict[str, Any]) -> None:
    shown = shown_labels(found)
    sources = found["map"]["sources"]
    groups: dict[tuple[int, int], list[list[float]]] = {}
    for x, y, label, who in found["map"]["points"]:
        groups.setdefault((label if label in shown else -1, who), []).append([x, y])
    size = 5.0 if len(found["map"]["points"]) < 1000 else 3.6
    for (label, who), places in sorted(groups.items(), key=lambda g: -len(g[1])):
        xs, ys = zip(*places, strict=True)
        edge = 1.0 if sources[who] == "open" else 0
        look: dict[str, Any] = {"marker": MARKS[sources[who]], "color": shade(label, shown), "alpha": 0.75}
        axes.plot(xs, ys, linestyle="none", markersize=size, markeredgewidth=edge, **look)
    axes.set_axis_off()
    axes.set_position((0.01, 0.01, 0.98, 0.98))
    axes.set_aspect("equal", adjustable="datalim")
