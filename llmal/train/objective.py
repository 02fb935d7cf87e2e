"""What a network is trained to make small: losses against labels and against a teacher's probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.records import Kind
from llmal.train.targets import Distil

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64]


class Lesson(NamedTuple):
    """What a network learns from.

    Attributes:
        tokens: token ids of n texts.
        targets: (n, C) float32 in [0, 1].
        weights: (n,) float32 > 0.
        distil: the parts of soft targets, or None.
    """

    tokens: list[list[int]]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    distil: Distil | None

    def some(self, rows: Rows) -> Lesson:
        """The lesson of some rows."""
        distil = None if self.distil is None else self.distil.some(rows)
        return Lesson([self.tokens[i] for i in rows], self.targets[rows], self.weights[rows], distil)


def mean_loss(logits: torch.Tensor, lesson: Lesson, kind: Kind, smoothing: float) -> torch.Tensor:
    """Weighted mean over the rows of a T^2 KL(teacher at T || student at T) + (1 - a) CE(label).

    Args:
        logits: (n, C) of the student.
        lesson: of the same rows; without soft targets a = 0 and `targets` stands for the label.
        kind: of the labels; when multi, each is a yes or a no, and a row's loss is their mean.
        smoothing: share of each label that is spread over all classes; probabilities are left as they are.

    Source: Hinton et al. 2015; Szegedy et al. 2016 (smoothing).
    """
    import torch

    d = lesson.distil
    given = torch.from_numpy(lesson.targets if d is None else d.labels).to(logits.device)
    even = 1 / given.shape[1] if kind == "single" else 0.5
    each = cross_entropy(logits, given * (1 - smoothing) + smoothing * even, kind)
    if d is not None:
        probs, share = (torch.from_numpy(a).to(logits.device) for a in (d.probs, d.share))
        each = (1 - share) * each + share * distillation(logits, probs, kind, d.temperature)
    weights = torch.from_numpy(lesson.weights).to(logits.device)
    return (each * weights).sum() / weights.sum()


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, kind: Kind) -> torch.Tensor:
    """(n,) cross-entropy against targets, in nats; the mean over labels when multi."""
    import torch

    if kind == "single":
        return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.mean(dim=1)


def distillation(logits: torch.Tensor, probs: torch.Tensor, kind: Kind, temperature: float) -> torch.Tensor:
    """(n,) T^2 KL(teacher || student), both at temperature T; 0 where they agree.

    The teacher's logits are taken to be the logs of its probabilities. T^2 keeps gradients at one scale
    whatever the temperature. Source: Hinton et al. 2015.
    """
    import torch

    if kind == "single":
        teacher = probs ** (1 / temperature)
        teacher = teacher / teacher.sum(dim=1, keepdim=True)
        entropy = -torch.xlogy(teacher, teacher).sum(dim=1)
    else:
        teacher = torch.sigmoid(torch.logit(probs) / temperature)
        entropy = -(torch.xlogy(teacher, teacher) + torch.xlogy(1 - teacher, 1 - teacher)).mean(dim=1)
    return temperature**2 * (cross_entropy(logits / temperature, teacher, kind) - entropy)


def bounds(lesson: Lesson, kind: Kind, smoothing: float) -> tuple[float, float]:
    """Mean loss of a student that says the same of every text, and of one that knows every target."""
    import torch

    weights = lesson.weights[:, None] / lesson.weights.sum()
    same = np.broadcast_to((lesson.targets * weights).sum(axis=0), lesson.targets.shape)
    found = []
    for probs in (same, lesson.targets):
        p = torch.from_numpy(np.array(probs, np.float64).clip(1e-4, 1 - 1e-4))
        logits = torch.log(p) if kind == "single" else torch.logit(p)
        found.append(float(mean_loss(logits.float(), lesson, kind, smoothing)))
    return found[0], found[1]
