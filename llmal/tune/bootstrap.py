"""BootstrapFewShot: demonstrations from the model's own right answers."""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from llmal.prompts.file import Compiled
from llmal.prompts.program import dspy
from llmal.tune.bench import Bench
from llmal.tune.optimiser import Optimiser, Start
from llmal.tune.program import at_work, examples, metric, state_of, student


class Bootstrap(Optimiser):
    """Worked examples: items the model answers right, filled up with people's answers.

    Each of `sets` tries takes the answers in another order; the best set is chosen on the validation answers.
    Source: Khattab et al. 2024 (DSPy: BootstrapFewShot, with random search over the order).
    """

    name: ClassVar[str] = "bootstrap"

    bootstrapped: int = Field(4, ge=1, le=32, description="most demonstrations that the model answered right")
    labelled: int = Field(
        4, ge=0, le=32, description="demonstrations in all, filled up with other answers of people"
    )
    sets: int = Field(4, ge=1, le=32, description="sets of demonstrations tried")

    def calls(self, n_optimise: int, n_validate: int) -> int:
        """Most calls: each set may look at every answer to learn from."""
        return self.sets * n_optimise

    def states(self) -> int:
        """One a set."""
        return self.sets

    def propose(self, start: Start, bench: Bench) -> list[Compiled]:
        """One state a set, twins left out."""
        teleprompt = dspy().BootstrapFewShot
        prompt, found = start.prompt, []
        bare = prompt.model_copy(update={"demonstrations": ()})
        with at_work(prompt, bench, self.calls(len(start.optimise), len(start.validate))):
            given = examples(prompt, start.optimise, bench)
            for n in range(self.sets):
                random.Random(f"{bench.ctx.seed} {n}").shuffle(given)
                maker = teleprompt(
                    metric=metric(bench), metric_threshold=1.0, max_bootstrapped_demos=self.bootstrapped,
                    max_labeled_demos=self.labelled, max_errors=len(given),
                )  # fmt: skip
                made = maker.compile(student(bare, bench.schema), trainset=list(given))
                state = state_of(made, prompt, start.plain, start.state, bench.schema)
                if state.demonstrations and state not in found:
                    found.append(state)
        return found
