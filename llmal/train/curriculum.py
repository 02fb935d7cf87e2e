"""Self-training in growing steps: the surest answers first, and a fresh student at every step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmal.train.selftraining import SelfTraining, Task, Teach, answers
from llmal.train.stage import Model


class Curriculum(SelfTraining):
    """Teaches a student its own surest answers, a larger share of the pool each time.

    With five steps the surest 20 % of the pool first, then 40 %, and all of it at last. At each step
    the answers are those of the student before it, none is kept, and the student starts from its first
    weights. Source: Cascante-Bonilla et al. 2021 (curriculum labelling).
    """

    steps: int = Field(5, ge=1, le=100, description="into how many equal steps the pool is divided")
    until: float = Field(1.0, gt=0, le=1, description="share of the pool after which it stops")
    weight: float = Field(1.0, gt=0, description="weight of an answer against a label")
    balanced: bool = Field(True, description="weigh answers inversely to how often their class is answered")

    def learn(self, task: Task, teach: Teach) -> Model:
        """Fit on the labels, then once for each step."""
        model = teach(task.known)
        for step in range(1, self.steps + 1):
            if step > 1 and step / self.steps > self.until + 1e-9:
                break
            probs = model.predict_proba(task.pool)
            said = answers(probs, task.schema)
            rows = surest(self.how_sure(probs, task), step / self.steps)
            weights = np.full(len(rows), self.weight)
            if self.balanced:
                weights *= evened(said.kinds[rows])
            model = teach(task.with_answers(rows, said.targets[rows], weights))
        return model


def surest(confidence: NDArray[np.floating], share: float) -> NDArray[np.int64]:
    """Rows of at least the confidence that so large a share reaches; all of those that tie there."""
    return np.flatnonzero(confidence >= threshold(confidence, share))


def threshold(confidence: NDArray[np.floating], share: float) -> float:
    """The linear percentile 100 (1 - share) of confidences."""
    return float(np.percentile(confidence, max(0.0, 100 * (1 - share))))


def evened(kinds: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) a weight of each row by which all answers that occur weigh the same, 1 on average."""
    _, which, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    return np.asarray(len(kinds) / (len(counts) * counts[which]))
