"""Sends an exported folder to a model hub: only on request, private unless told, after showing what goes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmal import weights
from llmal.errors import LlmalError, UserError

TOKEN = "HF_TOKEN"
"""Environment variable with the token; it is read nowhere else, and written nowhere."""

DATA = frozenset({".safetensors", ".json", ".txt", ".md", ".model", ".onnx"})
"""Endings of the files that an export holds; others stay here."""

NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)


def push(
    folder: Path, name: str, *, public: bool, agree: Callable[[str], bool], hub: Any = None
) -> str | None:
    """Send an export to a repository of models, made when it is not there.

    Args:
        folder: of an export.
        name: `NAME` or `OWNER/NAME` on the hub.
        public: whether everybody may read it.
        agree: shown the list of files and where they go; nothing leaves before it says yes.
        hub: a client with the methods of `huggingface_hub.HfApi`, which is used when absent.

    Returns:
        The repository's address, or None when `agree` said no.

    Raises:
        UserError: no export there, no token in the environment, a name no hub takes, or a repository that is
            public already although `public` is False.
        ModelError: the folder holds a pickle or names code.
        LlmalError: the hub refused.
    """
    if not (folder / "llmal.json").is_file():
        raise UserError("no exported classifier here", where=str(folder), hint="Name the folder of an export")
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' is no name of a repository", where="--push", hint="Write OWNER/NAME")
    weights.refuse_code(str(folder))
    weights.refuse_auto_map(folder)
    files = outgoing(folder)
    token = os.environ.get(TOKEN, "")
    if not token:
        raise UserError(
            "no token to write to the hub with", where=TOKEN, hint=f"Put it into the environment as {TOKEN}"
        )
    if not agree(shown(files, name, public=public)):
        return None
    try:
        return _sent(hub or _client(token), folder, list(files), name, public=public)
    except LlmalError:
        raise
    except Exception as error:  # the client raises errors of several libraries
        words = " ".join(str(error).split()).replace(token, "***")[:300]
        raise LlmalError(
            f"the hub did not take it: {words}", where=name, hint="Nothing else was changed; try again"
        ) from None  # the error below may hold the request's headers


def outgoing(folder: Path) -> dict[str, int]:
    """The files that would be sent -> their bytes: data of an export, no links, nothing else."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink() and file.suffix in DATA
    }


def shown(files: dict[str, int], name: str, *, public: bool) -> str:
    """What a person agrees to."""
    who = "PUBLIC, everybody can read it" if public else "private"
    lines = [f"{size / 1e6:10.1f} MB  {file}" for file, size in files.items()]
    total = sum(files.values()) / 1e6
    return "\n".join([f"To the model repository {name} ({who}):", *lines, f"{total:10.1f} MB  in all"])


def _client(token: str) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi

    return HfApi(token=token)


def _sent(hub: Any, folder: Path, files: list[str], name: str, *, public: bool) -> str:
    made = hub.create_repo(name, private=not public, exist_ok=True, repo_type="model")
    if not public and not hub.repo_info(made.repo_id, repo_type="model").private:
        raise UserError(
            "the repository is there already and public", where=name, hint="Say --public, or name another"
        )
    hub.upload_folder(
        repo_id=made.repo_id,
        repo_type="model",
        folder_path=str(folder),
        allow_patterns=files,
        commit_message="A classifier exported by llmal",
    )
    return str(made)
