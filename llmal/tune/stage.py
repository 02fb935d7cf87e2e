"""Compile a prompt: an optimiser proposes, and what is better on answers unseen by it stays."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from llmal.annotate.llm import Llm
from llmal.context import Context, Progress
from llmal.errors import BudgetSpent, StoreError, UserError
from llmal.prompts.file import DEFAULT_PROMPT, Compiled, read_prompt, read_state
from llmal.runner import private_files
from llmal.spec import Pipeline
from llmal.store.ledger import PICO, Bill, Caps, bill
from llmal.store.store import Store, open_store
from llmal.tune import gain as worth
from llmal.tune import state as files
from llmal.tune.bench import Bench
from llmal.tune.gain import Gain, Rule
from llmal.tune.optimiser import Optimiser, Start, optimiser
from llmal.tune.split import SHARES, Example, Split, answered, parts_of, read_parts, split
from llmal.tune.words import estimate_text

FOLDER = "tune"
"""In the run's folder: the split, the looks taken at its report answers, and every state ever proposed."""

LEVEL = 0.95
"""Of the interval of one look at the report answers; more looks share what is left of it."""

SAMPLE = (
    "Measured on items that people were asked about, which are no random sample of the corpus: the audit "
    "sample, which compiling never touches, says what the whole corpus gains."
)


class Wish(NamedTuple):
    """How a prompt is to be compiled.

    Attributes:
        use: name of the optimiser.
        options: its options.
        usd, calls: most this compilation may spend, inside the run's own budget; None for no cap of its own.
        shares: of the three parts of people's answers.
        rule: when the new prompt is kept.
        abstained: worth of an answer that declines, in [0, 1).
        dry: say what it would take, and stop.
    """

    use: str
    options: dict[str, Any]
    usd: float | None = None
    calls: int | None = None
    shares: Sequence[float] = SHARES
    rule: Rule = "positive"
    abstained: float = 0.0
    dry: bool = False


def compile_prompt(
    file: Path,
    folder: Path,
    wish: Wish,
    *,
    progress: Progress | None = None,
    agree: Callable[[str], bool] = lambda _: True,
) -> dict[str, Any]:
    """Compile the prompt of a pipeline from people's answers in a run.

    Args:
        file: the pipeline file.
        folder: the run's folder.
        wish: what to do.
        progress: where to show progress.
        agree: shown the estimate before anything is paid; False ends it.

    Returns:
        What was tried, what it is worth and where it stands; plain data.

    Raises:
        UserError: no prompt to compile, too few answers, a wrong option.
        BudgetSpent, ModelError, Interrupted: the prompt is as it was, every answer is kept.
    """
    if not (folder / "store.sqlite").is_file():
        raise StoreError("no run here", where=str(folder), hint="Name the folder that `llmal run` printed")
    pipeline = Pipeline.from_yaml(file)
    made = optimiser(wish.use, wish.options)
    made.check()
    with private_files():
        store = open_store(folder)
        try:
            return _Room(pipeline, file.parent.resolve(), store, made, wish, progress).run(agree)
        finally:
            store.close()


def revert(file: Path) -> dict[str, Any]:
    """Put back the state that was beside the pipeline's prompt before.

    Raises:
        UserError: nothing was compiled, or the pipeline has no prompt.
    """
    llm = _llm(Pipeline.from_yaml(file))
    home = file.parent.resolve()
    ctx = Context(home, home=home)
    prompt = ctx.path(llm.prompt) if llm.prompt else files.copied(home)
    return {"prompt": str(prompt), "reverted": files.revert(prompt)}


class _Room:
    """One compilation."""

    def __init__(
        self, pipeline: Pipeline, home: Path, store: Store, made: Optimiser, wish: Wish,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.llm = _llm(pipeline)
        self.store, self.made, self.wish, self.home = store, made, wish, home
        self.schema = pipeline.label_schema()
        self.ctx = Context(
            store.folder, home=home, seed=pipeline.seed, progress=progress, encode=pipeline.embed.encode
        )
        self.spent = bill(store)
        self.caps = _caps(pipeline.budget.caps(), self.spent, wish)
        self.bench = Bench(self.llm, self.schema, store, self.ctx, self.caps, abstained=wish.abstained)
        self.recipe = self.llm.recipe_for(self.schema, self.ctx, pipeline.embed.recipe())
        self.prompt = self.ctx.path(self.llm.prompt) if self.llm.prompt else DEFAULT_PROMPT
        self.folder = store.folder / FOLDER

    def run(self, agree: Callable[[str], bool]) -> dict[str, Any]:
        parts = self._split()
        plain = read_prompt(self.prompt)
        start = Start(plain, read_state(self.prompt) or Compiled(), parts.optimise, parts.validate)
        found = self._estimate(parts)
        if self.wish.dry or not agree(estimate_text(found)):
            return found | {"dry": True}
        try:
            return found | self._compiled(start, parts)
        except BudgetSpent as error:
            raise BudgetSpent(
                f"{error.message}; the prompt is as it was, and every answer is kept",
                where="llmal compile",
                hint="Raise --usd or --calls, or `budget` in the file, and run it again",
            ) from error

    def _split(self) -> Split:
        place = self.folder / "split.json"
        made = split(
            answered(self.store, self.schema), seed=self.ctx.seed, shares=self.wish.shares,
            kept=read_parts(place),
        )  # fmt: skip
        _write_json(place, read_parts(place) | parts_of(made))
        return made

    def _estimate(self, parts: Split) -> dict[str, Any]:
        n = parts.sizes()
        calls = self.made.calls(n["optimise"], n["validate"])
        calls += (1 + self.made.states()) * n["validate"] + 2 * n["report"]
        one = self.llm.estimate([e.item for e in parts.report], self.schema, self.ctx)
        each = None if one.usd is None or not one.calls else one.usd / one.calls
        return {
            "use": self.wish.use,
            "options": self.made.model_dump(mode="json"),
            "split": n,
            "estimate": {"calls": calls, "usd": None if each is None else each * calls},
            "caps": {"usd": None if self.caps.cost is None else (self.caps.cost - self.spent.cost) / PICO,
                     "calls": None if self.caps.calls is None else self.caps.calls - self.spent.calls},
        }  # fmt: skip

    def _compiled(self, start: Start, parts: Split) -> dict[str, Any]:
        self.ctx.progress.say(f"compile: {self.wish.use} learns from {len(parts.optimise)} answers")
        states = self.made.propose(start, self.bench)
        before = self.bench.scores(start.prompt, parts.validate)
        tried = [
            worth.paired(before, self.bench.scores(s.applied(start.plain), parts.validate), rng=self._rng())
            for s in states
        ]
        if not states:
            return self._end(start, parts, None, "no other prompt was found")
        best = max(range(len(states)), key=lambda i: tried[i].value)
        validate, state = tried[best], states[best]
        if validate.value <= 0:
            why = "not better on the validation answers, so the report answers were not looked at"
            return self._end(start, parts, state, why, validate)
        report = self._report(start, state, parts.report)
        keep = worth.kept(validate, report, self.wish.rule)
        why = "better on answers that no optimiser saw" if keep else "not better on answers unseen"
        if not keep and report.value > 0:
            why = "the interval of the gain on answers unseen holds 0, and --certain was asked for"
        return self._end(start, parts, state, why, validate, report, keep)

    def _report(self, start: Start, state: Compiled, examples: list[Example]) -> Gain:
        """The gain on answers unseen; every other prompt that was judged on them widens the interval."""
        new = state.applied(start.plain)
        look = hashlib.sha256(
            json.dumps([start.prompt.recipe(), new.recipe(), [e.item.key for e in examples]]).encode()
        ).hexdigest()[:16]
        place = self.folder / "looks.json"
        looks = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else []
        looks = list(dict.fromkeys([*looks, look]))
        _write_json(place, looks)
        level = 1 - (1 - LEVEL) / (1 + looks.index(look))
        before, after = self.bench.scores(start.prompt, examples), self.bench.scores(new, examples)
        return worth.paired(before, after, level=level, rng=self._rng())

    def _end(
        self, start: Start, parts: Split, state: Compiled | None, why: str,
        validate: Gain | None = None, report: Gain | None = None, keep: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        spent = _difference(bill(self.store), self.spent)
        found: dict[str, Any] = {
            "kept": keep,
            "why": why,
            "validate": None if validate is None else validate._asdict(),
            "report": None if report is None else report._asdict(),
            "calls": spent.calls,
            "cost": {"usd": None if self.llm.priced().local else spent.cost / PICO,
                     "tokens_in": spent.tokens_in, "tokens_out": spent.tokens_out},
            "state": None,
            "prompt": None if self.prompt == DEFAULT_PROMPT else str(self.prompt),
            "add": "",
            "asked_again": 0,
            "notes": self._notes(start, state),
        }  # fmt: skip
        if state is None:
            return found
        state = state.model_copy(update={"about": self._about(parts, found)})
        aside = (
            self.folder
            / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.wish.use}-{start.prompt.recipe()[-8:]}.json"
        )
        files.write(state, aside)
        found["state"] = str(aside)
        return found | (self._put(state) if keep else {})

    def _put(self, state: Compiled) -> dict[str, Any]:
        prompt, add = self.prompt, ""
        if prompt == DEFAULT_PROMPT:
            prompt = files.copied(self.home)
            files.copy_default(prompt)
            add = f"prompt: {prompt.relative_to(self.home)}"
        place = files.put(state, prompt)
        again = len(self.store.annotations(self.recipe)) * self.llm.asks
        return {"prompt": str(prompt), "state": str(place), "add": add, "asked_again": again}

    def _about(self, parts: Split, found: dict[str, Any]) -> dict[str, Any]:
        import llmal

        figures = ("kept", "why", "validate", "report", "calls", "cost")
        return {
            "optimiser": self.wish.use,
            "options": self.made.model_dump(mode="json"),
            "seed": self.ctx.seed,
            "model": self.llm.model,
            "split": parts.sizes(),
            "split_hash": parts.digest(),
            "rule": self.wish.rule,
            "abstained": self.wish.abstained,
            **{name: found[name] for name in figures},
            "llmal": llmal.__version__,
            "dspy": version("dspy"),
            "date": time.strftime("%Y-%m-%d"),
        }

    def _notes(self, start: Start, state: Compiled | None) -> list[str]:
        notes = [SAMPLE]
        usual = {"asks": 1, "batch": 1, "each": False, "stated": False, "shortlist": None}
        if any(getattr(self.llm, name, value) != value for name, value in usual.items()):
            notes.append("Measured with one plain question an item, not as the options of annotate ask.")
        if state is not None:
            old, new = (_bytes(s.applied(start.plain)) for s in (start.state, state))
            notes.append(
                f"The prompt goes from {old:,} to {new:,} bytes, labels and item aside; each call pays."
            )
            if (state.text, state.guidelines) != (start.state.text, start.state.guidelines):
                notes.append(
                    "Instructions and rules were written by a model that read your texts: read them."
                )
            if state.demonstrations:
                notes.append("Demonstrations are texts of your corpus: the state is as private as they are.")
        return notes

    def _rng(self) -> Any:
        return self.ctx.rng("tune")


def _llm(pipeline: Pipeline) -> Llm:
    if isinstance(pipeline.annotate, Llm):
        return pipeline.annotate
    raise UserError(
        f"the annotator '{pipeline.annotate.name}' has no prompt to compile",
        where="annotate",
        hint="Compile with a file whose annotator is `use: llm`, such as a panel's member on its own",
    )


def _caps(run: Caps, spent: Bill, wish: Wish) -> Caps:
    """The run's caps, or what is spent and this compilation's own, whichever is less."""
    cost = None if wish.usd is None else spent.cost + int(wish.usd * PICO)
    calls = None if wish.calls is None else spent.calls + wish.calls
    pairs = ((run.cost, cost), (run.calls, calls))
    return Caps(*(min((c for c in pair if c is not None), default=None) for pair in pairs))


def _difference(now: Bill, then: Bill) -> Bill:
    return Bill(*(a - b for a, b in zip(now, then, strict=True)))


def _bytes(prompt: Any) -> int:
    return len(prompt.text.encode()) + sum(len(d.text.encode()) for d in prompt.demonstrations)


def _write_json(place: Path, value: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + ".part")
    part.write_text(json.dumps(value, indent=0), encoding="utf-8")
    part.replace(place)
