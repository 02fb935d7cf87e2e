"""GEPA: instructions rewritten from feedback on wrong answers, kept along a Pareto front of the items."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from llmal.prompts.file import Compiled
from llmal.prompts.program import dspy
from llmal.tune.bench import Bench
from llmal.tune.optimiser import Optimiser, Start
from llmal.tune.program import MOST_CHARS, adapter, at_work, examples, metric, state_of, student

WISHES = (
    "Keep the instruction general: state what tells the labels apart, quote no text, and name no example. "
    "Write {labels} once where the list of labels is to stand; how to format the answer is said elsewhere."
)


class Gepa(Optimiser):
    """Instructions that a model rewrites after reading some of its answers beside those of people.

    Source: Agrawal et al. 2025 (GEPA: reflective prompt evolution).
    """

    name: ClassVar[str] = "gepa"

    rewrites: int = Field(8, ge=1, le=200, description="about how many rewritten instructions are tried")
    minibatch: int = Field(5, ge=1, le=20, description="answers a rewrite is based on")

    def evaluations(self, n_validate: int) -> int:
        """Answers GEPA may have scored: two minibatches a rewrite, and all where it is better."""
        return n_validate + self.rewrites * (2 * self.minibatch) + (self.rewrites // 2 + 1) * n_validate

    def calls(self, n_optimise: int, n_validate: int) -> int:
        """Most calls: answers to score, the last round of them in full, and one call a rewrite."""
        return self.evaluations(n_validate) + n_validate + 2 * self.rewrites

    def propose(self, start: Start, bench: Bench) -> list[Compiled]:
        """The best instructions found, when they differ from what there was."""
        prompt, right = start.prompt, metric(bench)

        def judged(example: Any, made: Any, trace: Any = None, name: Any = None, step: Any = None) -> Any:
            worth = right(example, made)
            words = "Right." if worth == 1 else f"Wrong: people answered {example.answer!r}."
            return dspy().Prediction(score=worth, feedback=words)

        with at_work(prompt, bench, self.calls(len(start.optimise), len(start.validate))) as models:
            from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer

            proposer = InstructionProposer(
                additional_instructions=WISHES, max_chars=MOST_CHARS, adapter=adapter(prompt, bench)
            )
            search = dspy().GEPA(
                metric=judged, max_metric_calls=self.evaluations(len(start.validate)), use_merge=False,
                reflection_lm=models.writer, reflection_minibatch_size=self.minibatch,
                instruction_proposer=proposer, seed=bench.ctx.seed,
            )  # fmt: skip
            made = search.compile(
                student(prompt, bench.schema),
                trainset=examples(prompt, start.optimise, bench),
                valset=examples(prompt, start.validate, bench),
            )
        state = state_of(made, prompt, start.plain, start.state, bench.schema)
        return [] if state.text == start.state.text else [state]
