"""What a vLLM server's log says about why it does not start, told in one sentence."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from llmal.errors import LlmalError, MissingExtra, ModelError


class PortTaken(ModelError):
    """Another process took the port first."""


_CAUSES = (
    (r"[Aa]ddress already in use", "its port was taken", ""),
    (
        r"out of memory|OutOfMemoryError|No available memory for the cache|[Ff]ree memory on device"
        r"|[Aa]vailable memory on node",
        "not enough memory for the model",
        "Lower {place}.vllm.memory or max_model_len, or take a smaller model",
    ),
    (
        r"larger than the (available|maximum).*KV cache",
        "the memory left does not hold one prompt of the model's full length",
        "Set {place}.vllm.max_model_len, 4096 say",
    ),
    (
        r"max_model_len \(\d+\) is greater than",
        "the model reads fewer tokens than asked for",
        "Lower {place}.vllm.max_model_len",
    ),
    (
        r"unrecognized arguments|invalid choice|expected one argument",
        "vLLM does not know an option",
        "See {place}.vllm.args",
    ),
    (
        r"trust_remote_code|trust-remote-code",
        "the model needs code of its own, which llmal never runs",
        "Take a model that vLLM knows",
    ),
    (
        r"RepositoryNotFound|LocalEntryNotFound|OfflineModeIsEnabled|not a valid model identifier"
        r"|couldn't connect to|Repo id must|not a local folder|Can't load the configuration",
        "no such model, in a folder or at the hub",
        "Check {place}.model, and the connection where it has to be downloaded",
    ),
)


_ERROR = re.compile(r"\b\w*(Error|Exception)\b: |\berror: ")


def cause(log: str, model: str, *, place: str, log_name: str) -> LlmalError:
    """Why a server ended, from its log, as one sentence with what to do.

    Args:
        log: what it wrote.
        model: as the user wrote it.
        place: key of the pipeline file that the hint points at.
        log_name: of the log in the run's folder.
    """
    if "No module named 'vllm'" in log or "No module named vllm" in log:
        return MissingExtra(
            "the interpreter that LLMAL_VLLM_PYTHON names has no vllm",
            where=model,
            hint='Install it there with: pip install "llmal[vllm]"',
        )
    for number, (pattern, words, hint) in enumerate(_CAUSES):
        lines = [line for line in map(_clean, log.splitlines()) if re.search(pattern, line)]
        if lines:
            line = ([x for x in lines if _ERROR.search(x)] or lines)[-1]
            kind = ModelError if number else PortTaken
            return kind(f"{words} ({line})", where=model, hint=hint.format(place=place))
    return ModelError(
        f"the server did not start ({last_line(log)})",
        where=model,
        hint=f"The whole log is {log_name} in the run's folder",
    )


def last_line(log: str) -> str:
    """The line of a log that matters: the last that names an error, else the last."""
    lines = [line for line in map(_clean, log.splitlines()[-400:]) if line]
    errors = [(line, after) for line, after in pairwise([*lines, ""]) if _ERROR.search(line)]
    roots = [pair for pair in errors if "Engine core initialization failed" not in pair[0]]
    if not (roots or errors):
        return (lines or ["it wrote nothing"])[-1]
    line, after = (roots or errors)[-1]
    return f"{line}: {after}"[:300] if "validation error" in line else line


def _clean(line: str) -> str:
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"^\s*\([^()]*\)\s*", "", line)
    line = re.sub(r"^(DEBUG|INFO|WARNING|ERROR)\s+[\d-]+ [\d:]+ (\[[^\]]*\])?\s*", "", line)
    return "".join(c for c in line if c.isprintable()).strip()[:300]


def read(log: Path) -> str:
    """The end of a log, 200 kB at most; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 200_000))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
