"""The tables of a run, as SQLAlchemy Core sees them; `migrations.py` is what creates them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ColumnElement, Float, Integer, MetaData, Table, Text, select

metadata = MetaData()

ADJUDICATE = "adjudicate"
"""Role of an answer that settles a dispute between people."""


def _table(name: str, key: str, /, **columns: type) -> Table:
    keys = key.split()
    kinds = {int: BigInteger, str: Text, float: Float}
    return Table(
        name,
        metadata,
        *(
            Column(c, Integer if (keys == [c] and k is int) else kinds[k], primary_key=c in keys)
            for c, k in columns.items()
        ),
    )


meta = _table("meta", "name", name=str, value=str)

# One line per distinct text; `seq` is its row in every array. A model wrote those flagged `synthetic`: they
# are items so that annotators and encoders take them, and of no corpus unless a row of a snapshot says so.
item = _table("item", "seq", seq=int, key=str, text=str, flags=str)
# One snapshot per state of the corpus file; rows are never edited, a changed file is a new snapshot.
corpus = _table("corpus", "n", n=int, recipe=str, digest=str, at=float)
row = _table("row", "corpus position", corpus=int, position=int, id=str, item=int, gold=str, skipped=str)
array = _table("array", "recipe start", recipe=str, start=int, stop=int, file=str)

audit = _table("audit", "item", item=int, at=float)
pick = _table(
    "pick", "item", item=int, round=int, rank=int, by=str, score=float, reason=str, recipe=str, at=float
)
# A labelled item that a strategy would have a person look at again.
doubt = _table("doubt", "item round", item=int, round=int, by=str, reason=str, recipe=str, at=float)
annotation = _table(
    "annotation",
    "item recipe",
    item=int,
    recipe=str,
    status=str,
    labels=str,
    probs=str,
    confidence=float,
    kind=str,
    detail=str,
    request=str,
    at=float,
)
decision = _table("decision", "item recipe", item=int, recipe=str, verdict=str, score=float, reason=str)
# A person's word on an item. `role` is `label`, or `adjudicate` where it settles a dispute between people;
# `shown` is the short list to choose from, `saw` a machine's labels that stood beside the text, as JSON.
answer = _table(
    "answer",
    "n",
    n=int,
    item=int,
    person=str,
    labels=str,
    note=str,
    source=str,
    line=int,
    at=float,
    seconds=float,
    shown=str,
    role=str,
    saw=str,
)
# What a person said of an item that is no label: `skip`, `unsure`, `flag` and `unflag` with the reason as
# note, or `undo`, of an answer by its number.
remark = _table(
    "remark",
    "n",
    n=int,
    item=int,
    person=str,
    what=str,
    answer=int,
    note=str,
    source=str,
    at=float,
    seconds=float,
)
student = _table(
    "student", "recipe", recipe=str, round=int, role=str, folder=str, n_items=int, note=str, at=float
)
route = _table(
    "route", "item recipe", item=int, recipe=str, who=str, labels=str, confidence=float, reason=str
)
measure = _table(
    "measure", "recipe name", recipe=str, name=str, value=float, low=float, high=float, n=int, measured_on=str
)
# A promise about people's answers: the how-manieth on this audit sample, its facts as JSON, and in words.
certificate = _table("certificate", "recipe", recipe=str, issue=int, facts=str, words=str, at=float)
withdrawal = _table("withdrawal", "certificate", certificate=str, reason=str, at=float)
# Comparisons of texts that came too late for the audit sample, up to which item, with the others.
look = _table("look", "number", number=int, certificate=str, upto=int, facts=str, at=float)
# Whether people choose from short lists, and what that saves or why there are none; the labels of each list.
shortlist = _table("shortlist", "recipe", recipe=str, route=str, asked=str, used=int, words=str, at=float)
candidates = _table("candidates", "item recipe", item=int, recipe=str, labels=str)
# The pool that test items are drawn from, never learnt from, and the draws: the chance each item had then.
tested = _table("tested", "item", item=int, at=float)
draw = _table("draw", "turn", turn=int, item=int, chance=float, pool=int, by=str, at=float)
export = _table("export", "recipe", recipe=str, folder=str, at=float)

# A text a model wrote: for which labels, and whether it may teach; no item where it was refused unread.
synthetic = _table(
    "synthetic",
    "recipe loop rank",
    recipe=str,
    loop=int,
    rank=int,
    item=int,
    text=str,
    labels=str,
    verdict=str,
    reason=str,
    at=float,
)
# What a student is worth after each loop of written texts, on the items whose part is `validate`.
generation = _table(
    "generation", "recipe loop", recipe=str, loop=int, loss=float, n_items=int, report=str, at=float
)
part = _table("part", "item", item=int, part=str, at=float)

# The ledger. An attempt without an outcome is a call whose fate nobody knows: it counts as spent.
request = _table(
    "request", "hash", hash=str, purpose=str, model=str, prompt=str, item=int, body=str, several=str
)
attempt = _table("attempt", "n", n=int, request=str, ordinal=int, worst=int, at=float)
outcome = _table(
    "outcome",
    "attempt",
    attempt=int,
    status=str,
    http=int,
    reason=str,
    cost=int,
    exact=int,
    tokens_in=int,
    tokens_out=int,
    at=float,
    seconds=float,
)
response = _table("response", "request", request=str, attempt=int, raw=str, model=str)
# A provider's batches: planned, with room for their calls, before anything is sent; then what became of them.
batch = _table("batch", "n", n=int, base_url=str, digest=str, calls=int, at=float)
batch_call = _table("batch_call", "attempt", attempt=int, batch=int)
batch_step = _table("batch_step", "batch name", batch=int, name=str, value=str, at=float)
endpoint = _table("endpoint", "recipe", recipe=str, facts=str, at=float)


def standing() -> ColumnElement[bool]:
    """Answers that nobody took back."""
    taken_back = select(remark.c.answer).where(remark.c.answer.is_not(None))
    return answer.c.n.not_in(taken_back)
