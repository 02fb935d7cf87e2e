"""Numbered steps from any older run folder to this version's; a step is never edited once released."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

from llmal.errors import StoreError

Step = Callable[[Connection], None]


def m001_first_tables(db: Connection) -> None:
    """Corpus, facts and ledger as of version 0.1."""
    for statement in _FIRST.split(";"):
        if statement.strip():
            db.execute(text(statement))


_FIRST = """
CREATE TABLE item (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, text TEXT NOT NULL, flags TEXT NOT
NULL); CREATE TABLE corpus (n INTEGER PRIMARY KEY, recipe TEXT NOT NULL, digest TEXT NOT NULL, at FLOAT NOT
NULL); CREATE TABLE row (corpus BIGINT NOT NULL, position BIGINT NOT NULL, id TEXT NOT NULL, item BIGINT, gold
TEXT,
  skipped TEXT NOT NULL, PRIMARY KEY (corpus, position));
CREATE INDEX row_item ON row (corpus, item);
CREATE INDEX row_id ON row (corpus, id);
CREATE TABLE array (recipe TEXT NOT NULL, start BIGINT NOT NULL, stop BIGINT NOT NULL, file TEXT NOT NULL,
  PRIMARY KEY (recipe, start));
CREATE TABLE audit (item INTEGER PRIMARY KEY, at FLOAT NOT NULL);
CREATE TABLE pick (item INTEGER PRIMARY KEY, round BIGINT NOT NULL, rank BIGINT NOT NULL, by TEXT NOT NULL,
score FLOAT,
  reason TEXT NOT NULL, recipe TEXT NOT NULL, at FLOAT NOT NULL);
CREATE INDEX pick_round ON pick (round);
CREATE TABLE annotation (item BIGINT NOT NULL, recipe TEXT NOT NULL, status TEXT NOT NULL, labels TEXT NOT
NULL,
  probs TEXT, confidence FLOAT, kind TEXT NOT NULL, detail TEXT NOT NULL, request TEXT, at FLOAT NOT NULL,
  PRIMARY KEY (item, recipe));
CREATE TABLE decision (item BIGINT NOT NULL, recipe TEXT NOT NULL, verdict TEXT NOT NULL, score FLOAT,
  reason TEXT NOT NULL, PRIMARY KEY (item, recipe));
CREATE TABLE answer (n INTEGER PRIMARY KEY, item BIGINT NOT NULL, person TEXT NOT NULL, labels TEXT NOT NULL,
  note TEXT NOT NULL, source TEXT NOT NULL, line BIGINT NOT NULL, at FLOAT NOT NULL, seconds FLOAT,
  UNIQUE (item, person, source, line));
CREATE TABLE student (recipe TEXT PRIMARY KEY, round BIGINT NOT NULL, role TEXT NOT NULL, folder TEXT NOT
NULL,
  n_items BIGINT NOT NULL, note TEXT NOT NULL, at FLOAT NOT NULL);
CREATE TABLE route (item BIGINT NOT NULL, recipe TEXT NOT NULL, who TEXT NOT NULL, labels TEXT NOT NULL,
  confidence FLOAT, reason TEXT NOT NULL, PRIMARY KEY (item, recipe));
CREATE TABLE measure (recipe TEXT NOT NULL, name TEXT NOT NULL, value FLOAT, low FLOAT, high FLOAT, n BIGINT
NOT NULL,
  measured_on TEXT NOT NULL, PRIMARY KEY (recipe, name));
CREATE TABLE export (recipe TEXT PRIMARY KEY, folder TEXT NOT NULL, at FLOAT NOT NULL);
CREATE TABLE request (hash TEXT PRIMARY KEY, purpose TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
item BIGINT,
  body TEXT);
CREATE INDEX request_item ON request (item);
CREATE TABLE attempt (n INTEGER PRIMARY KEY, request TEXT NOT NULL, ordinal BIGINT NOT NULL, worst BIGINT NOT
NULL,
  at FLOAT NOT NULL);
CREATE INDEX attempt_request ON attempt (request);
CREATE TABLE outcome (attempt INTEGER PRIMARY KEY, status TEXT NOT NULL, http BIGINT, reason TEXT NOT NULL,
  cost BIGINT NOT NULL, exact BIGINT NOT NULL, tokens_in BIGINT, tokens_out BIGINT, at FLOAT NOT NULL,
  seconds FLOAT NOT NULL);
CREATE TABLE response (request TEXT PRIMARY KEY, attempt BIGINT NOT NULL, raw TEXT NOT NULL, model TEXT NOT
NULL); CREATE TABLE endpoint (recipe TEXT PRIMARY KEY, facts TEXT NOT NULL, at FLOAT NOT NULL)
"""


def m002_doubts(db: Connection) -> None:
    """Labelled items that a person should look at again."""
    db.execute(
        text(
            "CREATE TABLE doubt (item BIGINT NOT NULL, round BIGINT NOT NULL, by TEXT NOT NULL, "
            "reason TEXT NOT NULL, recipe TEXT NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (item, round))"
        )
    )


def m003_questions_about_several(db: Connection) -> None:
    """The items of a question that asks about more than one."""
    db.execute(text("ALTER TABLE request ADD COLUMN several TEXT"))


def m004_batches(db: Connection) -> None:
    """A provider's batches, the calls in each, and what became of them."""
    for statement in (
        "CREATE TABLE batch (n INTEGER PRIMARY KEY, base_url TEXT NOT NULL, digest TEXT NOT NULL, "
        "calls BIGINT NOT NULL, at FLOAT NOT NULL)",
        "CREATE TABLE batch_call (attempt INTEGER PRIMARY KEY, batch BIGINT NOT NULL)",
        "CREATE INDEX batch_call_batch ON batch_call (batch)",
        "CREATE TABLE batch_step (batch BIGINT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, "
        "at FLOAT NOT NULL, PRIMARY KEY (batch, name))",
    ):
        db.execute(text(statement))


def m005_synthetic(db: Connection) -> None:
    """Texts a model wrote, how the student did after each loop of them, and which items measure that."""
    for statement in (
        "CREATE TABLE synthetic (recipe TEXT NOT NULL, loop BIGINT NOT NULL, rank BIGINT NOT NULL, "
        "item BIGINT, text TEXT NOT NULL, labels TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, "
        "at FLOAT NOT NULL, PRIMARY KEY (recipe, loop, rank))",
        "CREATE TABLE generation (recipe TEXT NOT NULL, loop BIGINT NOT NULL, loss FLOAT NOT NULL, "
        "n_items BIGINT NOT NULL, report TEXT NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (recipe, loop))",
        "CREATE TABLE part (item INTEGER PRIMARY KEY, part TEXT NOT NULL, at FLOAT NOT NULL)",
        # Asked for at every training; without it each time is a walk over all texts.
        "CREATE INDEX item_synthetic ON item (seq) WHERE flags = '[\"synthetic\"]'",
    ):
        db.execute(text(statement))


def m006_promises(db: Connection) -> None:
    """Certificates and their end, what people choose from, and test items drawn one after another."""
    for statement in (
        "CREATE TABLE certificate (recipe TEXT PRIMARY KEY, issue BIGINT NOT NULL, facts TEXT NOT NULL, "
        "words TEXT NOT NULL, at FLOAT NOT NULL)",
        "CREATE TABLE withdrawal (certificate TEXT PRIMARY KEY, reason TEXT NOT NULL, at FLOAT NOT NULL)",
        "CREATE TABLE look (number INTEGER PRIMARY KEY, certificate TEXT NOT NULL, upto BIGINT NOT NULL, "
        "facts TEXT NOT NULL, at FLOAT NOT NULL)",
        "CREATE TABLE shortlist (recipe TEXT PRIMARY KEY, route TEXT NOT NULL, asked TEXT NOT NULL, "
        "used BIGINT NOT NULL, words TEXT NOT NULL, at FLOAT NOT NULL)",
        "CREATE INDEX shortlist_route ON shortlist (route)",
        "ALTER TABLE answer ADD COLUMN shown TEXT",
        "CREATE TABLE candidates (item BIGINT NOT NULL, recipe TEXT NOT NULL, labels TEXT NOT NULL, "
        "PRIMARY KEY (item, recipe))",
        "CREATE TABLE tested (item INTEGER PRIMARY KEY, at FLOAT NOT NULL)",
        "CREATE TABLE draw (turn INTEGER PRIMARY KEY, item BIGINT NOT NULL UNIQUE, chance FLOAT NOT NULL, "
        "pool BIGINT NOT NULL, by TEXT NOT NULL, at FLOAT NOT NULL)",
    ):
        db.execute(text(statement))


def m007_remarks(db: Connection) -> None:
    """What people said of items besides labels: skipped, not sure, an answer taken back."""
    for statement in (
        "CREATE TABLE remark (n INTEGER PRIMARY KEY, item BIGINT NOT NULL, person TEXT NOT NULL, "
        "what TEXT NOT NULL, answer BIGINT, note TEXT NOT NULL, source TEXT NOT NULL, at FLOAT NOT NULL, "
        "seconds FLOAT, UNIQUE (item, person, source))",
        "CREATE INDEX remark_answer ON remark (answer) WHERE answer IS NOT NULL",
    ):
        db.execute(text(statement))


def m008_several_people(db: Connection) -> None:
    """Whether an answer settles a dispute, and which machine's labels were seen before it."""
    for statement in (
        "ALTER TABLE answer ADD COLUMN role TEXT NOT NULL DEFAULT 'label'",
        "ALTER TABLE answer ADD COLUMN saw TEXT",
        "CREATE INDEX answer_adjudicates ON answer (item) WHERE role = 'adjudicate'",
    ):
        db.execute(text(statement))


STEPS: tuple[Step, ...] = (
    m001_first_tables,
    m002_doubts,
    m003_questions_about_several,
    m004_batches,
    m005_synthetic,
    m006_promises,
    m007_remarks,
    m008_several_people,
)
VERSION = len(STEPS)


def migrate(db: Connection) -> int:
    """Bring an open store to this version; returns the version found.

    Raises:
        StoreError: a newer llmal made this store.
    """
    db.execute(text("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"))
    found = int(db.execute(text("SELECT value FROM meta WHERE name = 'version'")).scalar() or 0)
    if found > VERSION:
        raise StoreError(
            f"this run was made by a newer llmal (store version {found}, this one knows {VERSION})",
            hint="Upgrade llmal, or start a run in another folder",
        )
    for step in STEPS[found:]:
        step(db)
    if found < VERSION:
        db.execute(text("DELETE FROM meta WHERE name = 'version'"))
        db.execute(text("INSERT INTO meta (name, value) VALUES ('version', :v)"), {"v": str(VERSION)})
    return found
