"""What `llmal stream` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llmal.corpus import listed, shown
from llmal.errors import CorpusError, UserError
from llmal.spec import Pipeline
from llmal.stream.cascade import Options

ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv")
"""Of tables that can be read and written row by row."""


class Wish(NamedTuple):
    """What is asked for.

    Attributes:
        options: how much the model is asked.
        text: column with the text; the pipeline's `corpus.text` when None.
        id: column that names a row; the pipeline's `corpus.id` when None, else the row's number.
        with_text: write the text too.
        block: rows decided about at once; their calls go out together, and students learn after them.
        max_chars: of a text; longer ones are cut, as `corpus.max_chars` says.
        force: write over an output that is there, or start anew where another job was left unfinished.
        export: folder for the encoder's student at the end.
    """

    options: Options = Options()
    text: str = ""
    id: str | None = None
    with_text: bool = False
    block: int = 32
    max_chars: int = 20_000
    force: bool = False
    export: str | None = None

    def of(self, pipeline: Pipeline) -> Wish:
        """With what the pipeline says where nothing was said."""
        corpus = pipeline.corpus
        return self._replace(
            options=self.options._replace(seed=pipeline.seed),
            text=self.text or corpus.text,
            id=self.id or corpus.id,
            max_chars=corpus.max_chars,
        )


def check_paths(source: Path | None, out: Path | None, wish: Wish) -> None:
    """Raise where the call cannot work, before anything is loaded."""
    _check_options(wish.options)
    if source is not None and not source.is_file():
        raise CorpusError("no such file", where=str(source))
    for path in filter(None, (source, out)):
        if path.suffix.lower() not in ENDINGS:
            raise UserError(
                f"a stream is no table of kind '{shown(path.suffix)}'",
                where=str(path),
                hint=f"Known: {listed(ENDINGS)}",
            )
    if out is not None and out.is_dir():
        raise UserError("the output is a folder", where=str(out), hint="Name a file with --out")
    if out is not None and source is not None and out.exists() and out.samefile(source):
        raise UserError("the output is the input", where=str(out), hint="Name another file with --out")


def _check_options(o: Options) -> None:
    if o.share is not None and o.quality is not None:
        raise UserError(
            "share and quality are two ways to say one thing", where="--share", hint="Give one of them"
        )
    for name in ("share", "quality", "explore"):
        value = getattr(o, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{value} is no share", where=f"--{name}", hint="Give a number from 0 to 1")
    if not o.mu >= 0:
        raise UserError(f"{o.mu} is no price", where="--mu", hint="Give a number from 0")
    if o.rule == "nets" and (o.share is not None or o.quality is not None):
        raise UserError(
            "the published rule knows --mu only", where="--rule", hint="Leave --share and --quality out"
        )
