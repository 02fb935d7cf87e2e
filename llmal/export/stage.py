"""The export stage: the protocol of an exporter, and a folder that is whole or not there."""

from __future__ import annotations

import shutil
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from llmal.context import Context
from llmal.plugins import Plugin
from llmal.records import LabelSchema, Tally, recipe
from llmal.store import schema as t
from llmal.store.store import Store


class Parcel(NamedTuple):
    """What an exporter gets.

    Attributes:
        student: folder of the fitted student.
        kind: the student's plug-in name.
        encoder: the embed plug-in, for students that read vectors; anything with `to_spec` and `save`.
        schema: the classes.
        threshold: student probability from which no person is asked.
        max_length: tokens of a text the student reads, or None.
        facts: for the card: data hash, counts, measures with intervals, versions.
        texts: some of the corpus, for an exporter that compares what it wrote with the student; they stay
            out of the folder.
    """

    student: Path
    kind: str
    encoder: Any
    schema: LabelSchema
    threshold: float | None
    max_length: int | None
    facts: dict[str, Any]
    texts: tuple[str, ...] = ()

    @property
    def headed(self) -> bool:
        """Whether the student is a regression on an encoder's vectors, the run's encoder or its own."""
        return self.kind in ("linear", "setfit")


class Exporter(Plugin):
    """Writes a student so that others can load it.

    Contract (tested for every exporter): the folder holds no pickle and no code; it loads in a process that
    has no network; its predictions equal the student's; labels keep their order.
    """

    group: ClassVar[str] = "export"

    @abstractmethod
    def export(self, parcel: Parcel, folder: Path) -> None:
        """Write into an existing, empty folder."""


def export_recipe(exporter: Exporter, parcel: Parcel) -> str:
    """Hash of exporter, student, threshold and measures."""
    return recipe("export", exporter.recipe(), parcel.student.name, parcel.threshold, parcel.facts)


def run(exporter: Exporter, store: Store, ctx: Context, *, parcel: Parcel, folder: Path) -> Tally:
    """Write the export unless this very one stands there already.

    Args:
        exporter: the plug-in.
        store: of the run.
        ctx: shared context.
        parcel: what to export.
        folder: where to; an older export there is replaced in one rename.
    """
    name = export_recipe(exporter, parcel)
    if store.fact(t.export, name) is not None and folder.is_dir():
        return Tally(1, 0, str(folder))
    write(exporter, parcel, folder)
    new = store.add(t.export, [{"recipe": name, "folder": folder.name, "at": time.time()}])
    return Tally(1, new, str(folder))


def write(exporter: Exporter, parcel: Parcel, folder: Path) -> None:
    """Export beside the place, then move it: a crash leaves the old export, or none, never half of one."""
    part = folder.with_name(folder.name + ".part")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    exporter.export(parcel, part)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
