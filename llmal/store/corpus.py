"""What a run's corpus holds, snapshot by snapshot, and the arrays that have a row for each of its items."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmal.errors import StoreError
from llmal.records import Item, Labels, batched
from llmal.store import schema as t
from llmal.store.base import BATCH, Tables, labels_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmal.corpus import Row


class CorpusFacts(Tables):
    """The part of a store that is about texts."""

    def has_corpus(self, recipe: str, digest: str) -> bool:
        """Whether the newest snapshot was read from these very bytes in this very way."""
        newest = self.read(
            sa.select(t.corpus.c.recipe, t.corpus.c.digest).order_by(t.corpus.c.n.desc()).limit(1)
        )
        return bool(newest) and tuple(newest[0]) == (recipe, digest)

    def put_corpus(self, recipe: str, digest: str, rows: Iterator[Row], key: Any) -> None:
        """Add a snapshot, and the items it brings, in one transaction; texts seen before keep their item."""
        with self.begin() as db:
            n = int(db.execute(sa.select(sa.func.coalesce(sa.func.max(t.corpus.c.n), 0))).scalar_one()) + 1
            seqs = {k: seq for seq, k in db.execute(sa.select(t.item.c.seq, t.item.c.key))}
            for batch in batched(rows, BATCH):
                items: list[dict[str, Any]] = []
                lines: list[dict[str, Any]] = []
                for row in batch:
                    seq = None
                    if row.text is not None:
                        k = key(row.text)
                        seq = seqs.get(k)
                        if seq is None:
                            seq = seqs[k] = len(seqs)
                            items.append(
                                {"seq": seq, "key": k, "text": row.text, "flags": json.dumps(row.flags)}
                            )
                    gold = None if row.gold is None else json.dumps(row.gold)
                    lines.append(
                        {
                            "corpus": n,
                            "position": row.position,
                            "id": row.id,
                            "item": seq,
                            "gold": gold,
                            "skipped": row.skipped,
                        }
                    )
                if items:
                    self.add(t.item, items, db=db)
                self.add(t.row, lines, db=db)
            self.add(t.corpus, [{"n": n, "recipe": recipe, "digest": digest, "at": time.time()}], db=db)

    def newest_corpus(self) -> int:
        """Number of the newest snapshot, 0 when there is none."""
        return int(self.read(sa.select(sa.func.coalesce(sa.func.max(t.corpus.c.n), 0)))[0][0])

    def n_items(self) -> int:
        """Distinct texts ever seen: the height of every full array."""
        return self.count(t.item)

    def active(self, items: Collection[int] | None = None) -> list[int]:
        """The `seq` of every item in the newest snapshot, or of those among these, ascending."""
        c = t.row.c
        query = sa.select(c.item).where(c.corpus == self.newest_corpus(), c.item.is_not(None))
        found = [s for (s,) in self.tuples(query.distinct().order_by(c.item), c.item, items)]
        return found if items is None else sorted(found)

    def n_active(self) -> int:
        """Items in the newest snapshot."""
        c = t.row.c
        query = sa.select(sa.func.count(c.item.distinct())).where(c.corpus == self.newest_corpus())
        return int(self.read(query)[0][0])

    def items(self, seqs: Sequence[int]) -> list[Item]:
        """Items by `seq`, in the order asked for."""
        found: dict[int, Item] = {}
        for part in batched(seqs, BATCH):
            for seq, key, text, flags in self.read(sa.select(t.item).where(t.item.c.seq.in_(part))):
                found[seq] = Item(seq, key, text, tuple(json.loads(flags)))
        return [found[seq] for seq in seqs]

    def hidden(self) -> set[int]:
        """Items a model wrote that the newest snapshot does not hold: they are nobody's corpus."""
        written: sa.ColumnElement[str] = sa.literal_column(
            "'[\"synthetic\"]'"
        )  # word for word as in the index
        found = {s for (s,) in self.read(sa.select(t.item.c.seq).where(t.item.c.flags == written))}
        return found - set(self.active(found)) if found else found

    def texts(self, start: int, stop: int) -> list[str]:
        """Texts of items `start` to `stop - 1`."""
        where = (t.item.c.seq >= start, t.item.c.seq < stop)
        return [text for (text,) in self.read(sa.select(t.item.c.text).where(*where).order_by(t.item.c.seq))]

    def set_aside(self) -> Sequence[Any]:
        """(position, id, skipped) of every row of the newest snapshot that was set aside, in file order."""
        c = t.row.c
        query = sa.select(c.position, c.id, c.skipped)
        return self.read(query.where(c.corpus == self.newest_corpus(), c.skipped != "").order_by(c.position))

    def ids(self, items: Collection[int]) -> dict[int, str]:
        """Item -> id of the first row of the newest snapshot that it stands for."""
        c = t.row.c
        query = sa.select(c.item, c.id).where(c.corpus == self.newest_corpus())
        # The later row is overwritten by the earlier.
        return dict(self.tuples(query.order_by(c.position.desc()), c.item, items))

    def rows(self) -> Sequence[Any]:
        """(position, id, item, gold, skipped) of every row of the newest snapshot, in file order."""
        c = t.row.c
        where = c.corpus == self.newest_corpus()
        return self.read(
            sa.select(c.position, c.id, c.item, c.gold, c.skipped).where(where).order_by(c.position)
        )

    def gold(self, items: Collection[int] | None = None) -> dict[int, Labels]:
        """Item -> answer known beforehand, less rows of one text that disagree: they prove nothing.

        Args:
            items: these alone; the whole corpus where None.
        """
        c = t.row.c
        query = sa.select(c.item, c.gold).where(
            c.corpus == self.newest_corpus(), c.gold.is_not(None), c.item.is_not(None)
        )
        found: dict[int, Labels] = {}
        torn: set[int] = set()
        for seq, gold in self.tuples(query, c.item, items):
            labels = labels_of(gold)
            if found.setdefault(seq, labels) != labels:
                torn.add(seq)
        return {seq: labels for seq, labels in found.items() if seq not in torn} if torn else found

    # --- arrays ---------------------------------------------------------------------------------------------

    def covered(self, recipe: str) -> int:
        """Rows of an array already on disk; blocks are appended in item order without gaps."""
        where = t.array.c.recipe == recipe
        return int(self.read(sa.select(sa.func.coalesce(sa.func.max(t.array.c.stop), 0)).where(where))[0][0])

    def put_block(self, recipe: str, start: int, block: NDArray[np.float32]) -> None:
        """Write rows `start` onward of an array: file first, then the fact that names it."""
        import numpy as np

        folder = self.folder / "arrays"
        folder.mkdir(exist_ok=True)
        name = f"{recipe}-{start:09d}.npy"
        part = folder / (name + ".part")
        with part.open("wb") as file:
            np.save(file, block, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
        self.add(t.array, [{"recipe": recipe, "start": start, "stop": start + len(block), "file": name}])

    def load(self, recipe: str) -> NDArray[np.float32]:
        """The whole array, rows in item order: mapped from disk when it is one block, joined when several."""
        import numpy as np

        where = t.array.c.recipe == recipe
        files = self.read(sa.select(t.array.c.file).where(where).order_by(t.array.c.start))
        parts = [np.load(self.folder / "arrays" / f, mmap_mode="r", allow_pickle=False) for (f,) in files]
        if not parts:
            raise StoreError(f"no array {recipe} in this run", where=self.folder.name)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
