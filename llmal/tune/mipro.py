"""MIPROv2: instructions a model proposes and sets of demonstrations, the pair chosen by Bayesian search."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from llmal.extras import need
from llmal.prompts.file import Compiled
from llmal.prompts.program import dspy
from llmal.tune.bench import Bench
from llmal.tune.optimiser import Optimiser, Start
from llmal.tune.program import at_work, examples, metric, state_of, student

FULL_EVERY = 5
"""Trials between two looks at all validation answers, as in DSPy."""


class Mipro(Optimiser):
    """Instructions and demonstrations together: the model proposes both, a Bayesian search picks the pair.

    Trials score on a part of the validation answers, the leading pair on all of them. The description of the
    program's own code is left out: there is one step, and it is in the instructions.
    Source: Opsahl-Ong et al. 2024 (MIPROv2); Bergstra et al. 2011 (TPE).
    """

    name: ClassVar[str] = "mipro"

    candidates: int = Field(6, ge=2, le=50, description="instructions, and sets of demonstrations, proposed")
    trials: int | None = Field(None, ge=1, description="pairs tried; by the paper's rule when absent")
    minibatch: int = Field(35, ge=5, description="validation answers a trial")
    demonstrations: int = Field(4, ge=0, le=16, description="most worked examples; 0 for instructions alone")

    def check(self) -> None:
        """Refuse without optuna."""
        need("optuna", extra="compile", why="for the search of mipro")

    def n_trials(self) -> int:
        """Pairs tried: max(2 V log2 N, 1.5 N) for N candidates and V things to choose (1 or 2)."""
        things = 2 if self.demonstrations else 1
        n = self.candidates
        return self.trials or int(max(2 * things * math.log2(n), 1.5 * n))

    def calls(self, n_optimise: int, n_validate: int) -> int:
        """Most calls: bootstrapping, a summary of the texts, instructions, trials and full evaluations."""
        trials, batch = self.n_trials(), min(self.minibatch, n_validate)
        writing = 2 + min(10, n_optimise // 10) + self.candidates
        full = 2 + trials // FULL_EVERY
        return max(self.candidates - 2, 1) * n_optimise + writing + trials * batch + full * n_validate

    def propose(self, start: Start, bench: Bench) -> list[Compiled]:
        """The best pair found, when it differs from what there was."""
        self.check()
        prompt = start.prompt
        with at_work(prompt, bench, self.calls(len(start.optimise), len(start.validate))) as models:
            search = dspy().MIPROv2(
                metric=metric(bench), metric_threshold=1.0,
                prompt_model=models.writer, task_model=models.task,
                max_bootstrapped_demos=self.demonstrations, max_labeled_demos=self.demonstrations, auto=None,
                num_candidates=self.candidates, seed=bench.ctx.seed + 1, track_stats=False,
            )  # fmt: skip
            valset = examples(prompt, start.validate, bench)
            made = search.compile(
                student(prompt, bench.schema),
                trainset=examples(prompt, start.optimise, bench), valset=valset,
                num_trials=self.n_trials(), minibatch=len(valset) > self.minibatch,
                minibatch_size=min(self.minibatch, len(valset)), minibatch_full_eval_steps=FULL_EVERY,
                program_aware_proposer=False,
            )  # fmt: skip
        state = state_of(made, prompt, start.plain, start.state, bench.schema)
        return [] if state == start.state.model_copy(update={"about": {}}) else [state]
