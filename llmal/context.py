"""What a stage is handed besides the store: randomness, progress, the encoder, and the wish to stop."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLAIN_LINE_EVERY_S = 10.0
"""Seconds between two progress lines where there is no terminal."""


class Advance(Protocol):
    """Tells the progress display that `n` more units are done; `note` replaces the words at the end."""

    def __call__(self, n: int = 1, *, note: str = "") -> None:
        """Count `n` units as done."""


class Progress(Protocol):
    """Where progress is shown."""

    def say(self, text: str) -> None:
        """Show one line."""

    def task(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """A bar of `total` units for one piece of work."""


class Silent:
    """Shows nothing: for notebooks that asked for it, and tests."""

    def say(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Count nothing."""

        def advance(n: int = 1, *, note: str = "") -> None:
            return None

        yield advance


class PlainLines:
    """One line to stderr when a task starts to take long, and every `PLAIN_LINE_EVERY_S` after."""

    def say(self, text: str) -> None:
        """Write the line to stderr."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Lines such as `annotate: 120/300 (3 failed)`."""
        done = 0
        last = time.monotonic()

        def advance(n: int = 1, *, note: str = "") -> None:
            nonlocal done, last
            done += n
            if time.monotonic() - last >= PLAIN_LINE_EVERY_S:
                last = time.monotonic()
                self.say(f"  {title}: {done}/{total} {note}".rstrip())

        yield advance


class RichBars:
    """Rich progress bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print the line as it is: corpus text never reaches Rich's markup."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """A bar that disappears when the work is done; the stage's own line stays."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, TextColumn("{task.fields[note]}"), console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=total, note="")

            def advance(n: int = 1, *, note: str = "") -> None:
                bars.advance(task, n)
                if note:
                    bars.update(task, note=note)

            yield advance


class Under:
    """Progress of work inside other work: its counts are words beside the outer bar, of which there is one.

    Args:
        outer: where lines are shown.
        advance: of the outer bar.
        title: of the work inside.
    """

    def __init__(self, outer: Progress, advance: Advance, title: str) -> None:
        self._outer, self._advance, self._title = outer, advance, title

    def say(self, text: str) -> None:
        """Show the line where the outer work shows its own."""
        self._outer.say(text)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Words such as `llm 2/3: 120 of 300`."""
        done = 0

        def advance(n: int = 1, *, note: str = "") -> None:
            nonlocal done
            done += n
            self._advance(0, note=f"{self._title}: {done} of {total} {note}".rstrip())

        yield advance


def progress_for_terminal() -> Progress:
    """Bars where a person watches, plain lines in a pipe or a log."""
    return RichBars() if sys.stderr.isatty() else PlainLines()


class Context:
    """What every stage of a run shares.

    Attributes:
        folder: the run's folder.
        home: folder of the pipeline file; relative paths in the file start here.
        seed: the file's seed.
        progress: where progress is shown.
        encode: the run's encoder: texts -> (n, d) float32 unit rows.
    """

    def __init__(
        self,
        folder: Path,
        *,
        home: Path,
        seed: int = 0,
        progress: Progress | None = None,
        encode: Callable[[list[str]], NDArray[np.float32]] | None = None,
    ) -> None:
        self.folder = folder
        self.home = home
        self.seed = seed
        self.progress: Progress = progress or Silent()
        self._encode = encode

    def rng(self, stage: str, round_no: int = 0) -> np.random.Generator:
        """Randomness of one stage in one round; never global, so a resumed run equals an unbroken one."""
        import numpy as np

        return np.random.default_rng([self.seed, round_no, zlib.crc32(stage.encode())])

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of texts that are not items (label descriptions): (n, d) float32, unit rows."""
        if self._encode is None:
            raise RuntimeError("this context has no encoder")
        return self._encode(texts)

    def path(self, value: str) -> Path:
        """A path from the pipeline file: absolute, or from that file's folder, else from the folder above it.

        The second place is for the usual layout: `pipelines/` with the files, `prompts/` and `data/` beside
            it.
        """
        given = Path(value).expanduser()
        places = (self.home / given, self.home.parent / given)
        return next((place for place in places if place.exists()), places[0]).resolve()
