"""What is known of a run while people label it: their own deeds at once, what others write soon after."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from llmal.desk.pool import Pool
from llmal.desk.source import Look, Source, Stamp, differ, speakers
from llmal.errors import LlmalError
from llmal.records import Word

CHECK_S = 2.0
"""Seconds between two questions whether somebody else wrote; each is a few look-ups."""

SHORT_S = 0.1
"""Seconds that a look may take while everybody waits for it; a longer one goes on beside."""

REST = 5.0
"""Times the length of a look at everything that passes before the next: it takes no more than a sixth."""


class News:
    """Keeps a pool as new as the run. All but `look_beside` is called with the lock held.

    Args:
        source: of what waits.
        pool: is filled.
        wanted: people who answer what several answer.
        lock: of the desk.
        clock: seconds that only grow.

    Attributes:
        torn: item that people differ on, and nobody settled -> their words.
        mine: person -> words that stand.
        flagged: item -> why.
    """

    def __init__(
        self, source: Source, pool: Pool, wanted: int, lock: threading.Lock, clock: Callable[[], float]
    ) -> None:
        self._source, self._pool, self._wanted = source, pool, wanted
        self._lock, self._clock = lock, clock
        self.torn: dict[int, list[Word]] = {}
        self.mine: Counter[str] = Counter()
        self.flagged: dict[int, str] = {}
        self._deeds = self._merged = self._spent = 0
        self._took = 0.0
        self._touched: dict[int, int] = {}
        self._wrote: list[tuple[int | None, int | None]] = []
        self._looking: threading.Thread | None = None
        self._checked = self._rested = clock()
        self._stamp = Stamp((), -1, -1)
        self.look()

    # --- our own deeds --------------------------------------------------------------------------------------

    def deed(
        self,
        item: int,
        *,
        answer: int | None = None,
        remark: int | None = None,
        before: Sequence[Word] | None = None,
        after: Sequence[Word] = (),
    ) -> None:
        """Book what is on disk; where nobody else wrote, what is known stays as new as it was.

        Args:
            item: what it is about.
            answer: its number, where it is one.
            remark: its number, where it is one.
            before: what people said of the item, where that changed.
            after: what they say of it now.
        """
        self._deeds += 1
        self._touched[item] = self._deeds
        self._wrote.append((answer, remark))
        self._stamp = self._stamp.after(answer=answer, remark=remark)
        if before is None:
            return
        more = len({w.person for w in after}) - len({w.person for w in before})
        self._spent += more
        if self._pool.left is not None:
            self._pool.left = max(0, self._pool.left - more)
        self.mine.subtract(speakers(before))
        self.mine.update(speakers(after))
        if differ(after):
            self.torn[item] = [*after]
        else:
            self.torn.pop(item, None)

    def short(self) -> None:
        """Somebody put off an item, and what a budget cut off may come in its place."""
        if self._pool.left is not None:
            self._stamp = self._stamp._replace(remark=-1)

    # --- what others write ----------------------------------------------------------------------------------

    def needed(self) -> bool:
        """Somebody has nothing left: look at once where there may be more; whether there was a look."""
        if self._clock() < self._rested or self._looking is not None or self._source.stamp() == self._stamp:
            return False
        if self._took > SHORT_S:  # the others go on meanwhile, and this page asks again
            self._look_on()
            return False
        self.look()
        return True

    def watch(self) -> None:
        """Now and then, see whether somebody else wrote; if so, look while people go on."""
        now = self._clock()
        if now < max(self._checked + CHECK_S, self._rested) or self._looking is not None:
            return
        self._checked = now
        if self._source.stamp() != self._stamp:
            self._look_on()

    def _look_on(self) -> None:
        self._looking = threading.Thread(target=self.look_beside, name="llmal-desk", daemon=True)
        self._looking.start()

    def look_beside(self) -> None:
        """Look at everything without the lock, which is taken to take over what was found."""
        try:
            with self._lock:
                began, spent, at = self._deeds, self._spent, self._clock()
            found = self._source.look()
            with self._lock:
                if began >= self._merged:
                    self._merge(found, began, spent, at)
        except LlmalError as error:  # the page goes on with what it has, and looks again
            sys.stderr.write(f"review page: {error}\n")
        finally:
            self._looking = None

    def look(self) -> None:
        """Look at everything now."""
        at = self._clock()
        self._merge(self._source.look(), self._deeds, self._spent, at)

    def close(self) -> None:
        """Wait for a look that is under way; the store may be closed then. Without the lock."""
        if (looking := self._looking) is not None:
            looking.join()

    def _merge(self, found: Look, began: int, spent: int, at: float) -> None:
        """Take over what was found; deeds since it was begun are newer than it."""
        touched = {item for item, deed in self._touched.items() if deed > began}
        if touched:  # these were counted one by one
            left = None if found.left is None else max(0, found.left - (self._spent - spent))
            newer = {s: words for s, words in self.torn.items() if s in touched}
            self.torn = {s: words for s, words in found.torn.items() if s not in touched} | newer
        else:
            left = found.left
            self.torn, self.mine, self.flagged = found.torn, found.mine, found.flagged
        waits = {w.item for w in found.waiting}
        chosen = self._pool.choose(waits | found.people.keys())
        halves = sorted(
            s for s in chosen if 0 < len(found.people.get(s, ())) < self._wanted and s not in waits
        )
        known = {s: w for s in halves if (w := self._pool.known(s)) is not None}
        known |= {w.item: w for w in self._source.again([s for s in halves if s not in known])}
        again = [known[s] for s in halves if s in known]
        self._pool.fill(found.waiting, found.people, halves=again, left=left, touched=touched)
        others = found.stamp.answer > self._stamp.answer or found.stamp.remark > self._stamp.remark
        self._stamp = found.stamp
        for answer, remark in self._wrote:
            self._stamp = self._stamp.after(answer=answer, remark=remark)
        self._wrote.clear()
        if touched and others:  # whose words and flags were left as they were: look once more
            self._stamp = self._stamp._replace(remark=-1)
        self._merged = self._deeds
        now = self._clock()
        self._took = now - at
        self._checked, self._rested = now, now + REST * self._took
