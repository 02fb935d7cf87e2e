"""llmal: from a corpus of unlabelled text to a labelled corpus, a small classifier and a report that is true.

>>> import llmal
>>> pipeline = llmal.Pipeline(corpus={"path": "tickets.jsonl"}, labels={"names": ["bug", "billing"]})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmal.errors import LlmalError
    from llmal.plugins import Plugin
    from llmal.predictor import Predictor, load
    from llmal.runner import run
    from llmal.spec import Pipeline
    from llmal.state import Outcome

__version__ = "0.1.0"

__all__ = ["LlmalError", "Outcome", "Pipeline", "Plugin", "Predictor", "__version__", "load", "run"]

_HOMES = {
    "LlmalError": "llmal.errors",
    "Outcome": "llmal.state",
    "Pipeline": "llmal.spec",
    "Plugin": "llmal.plugins",
    "Predictor": "llmal.predictor",
    "load": "llmal.predictor",
    "run": "llmal.runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import llmal` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llmal' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
