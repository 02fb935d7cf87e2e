"""The losses of a network: worked values, scikit-learn's and torch's own numbers, gradients of one scale."""

import numpy as np
import pytest
import torch

from llmal.train.objective import Lesson, bounds, cross_entropy, distillation, mean_loss
from llmal.train.targets import Distil

LOGITS = torch.tensor([[2.0, 1.0, 0.0]])
TEACHER = torch.tensor([[0.6, 0.3, 0.1]])


def lesson(targets, *, weights=None, distil=None):
    targets = np.float32(targets)
    weights = np.ones(len(targets), np.float32) if weights is None else np.float32(weights)
    return Lesson([[0]] * len(targets), targets, weights, distil)


def parts(labels, probs, share, temperature=1.0):
    return Distil(np.float32(labels), np.float32(probs), np.float32(share), temperature)


def test_distillation_at_two_is_the_worked_value():
    assert distillation(LOGITS, TEACHER, "single", 2.0).tolist() == pytest.approx([0.009711], abs=1e-5)


def test_a_certain_teacher_at_one_is_cross_entropy():
    label = torch.tensor([[0.0, 1.0, 0.0]])
    found = distillation(LOGITS, label, "single", 1.0)
    assert found.tolist() == pytest.approx(torch.nn.functional.cross_entropy(LOGITS, label).reshape(1))
    yes = torch.tensor([[1.0, 0.0, 1.0]])
    found = distillation(LOGITS, yes, "multi", 1.0)
    reference = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, yes)
    assert found.tolist() == pytest.approx([reference.item()])


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_student_that_agrees_with_its_teacher_loses_nothing(kind, temperature):
    logits = torch.log(TEACHER) if kind == "single" else torch.logit(TEACHER)
    assert distillation(logits, TEACHER, kind, temperature).tolist() == pytest.approx([0], abs=1e-5)
    assert distillation(logits + torch.tensor([1.0, 0, 0]), TEACHER, kind, temperature).item() > 0.01


def test_two_yes_and_no_answers_are_two_classes_each():
    logits, probs = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.8, 0.3]])
    found = distillation(logits, probs, "multi", 3.0).item()
    each = [
        distillation(torch.stack([z, torch.zeros(())])[None], torch.stack([p, 1 - p])[None], "single", 3.0)
        for z, p in zip(logits[0], probs[0], strict=True)
    ]
    assert found == pytest.approx(torch.stack(each).mean().item(), abs=1e-6)


def test_gradients_keep_their_scale_whatever_the_temperature():
    draw = np.random.default_rng(0)
    start = torch.tensor(0.3 * draw.normal(size=(200, 4)), dtype=torch.float32)
    probs = torch.softmax(torch.tensor(0.3 * draw.normal(size=(200, 4)), dtype=torch.float32), dim=1)

    def scale(temperature, squared=True):
        logits = start.clone().requires_grad_()
        loss = distillation(logits, probs, "single", temperature).sum()
        (loss if squared else loss / temperature**2).backward()
        return logits.grad.norm().item()

    assert [scale(t) / scale(1.0) for t in (2.0, 4.0, 8.0)] == pytest.approx([1, 1, 1], abs=0.1)
    assert scale(4.0, squared=False) / scale(1.0) < 0.1  # what the factor is for


def test_label_and_probabilities_are_mixed_by_the_share_of_each_row():
    labels, probs = [[0, 1, 0], [0, 1, 0]], [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]
    logits = LOGITS.expand(2, 3)
    found = mean_loss(logits, lesson(labels, distil=parts(labels, probs, [0.25, 0], 2.0)), "single", 0.1)
    smooth = torch.tensor([[0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3]])
    hard = cross_entropy(LOGITS, smooth, "single").item()
    assert found.item() == pytest.approx((0.75 * hard + 0.25 * 0.009711 + hard) / 2, abs=1e-5)


def test_at_one_the_mixture_pulls_as_the_mixed_target_does():
    labels, probs = [[0, 1, 0]], [[0.6, 0.3, 0.1]]
    both = []
    for given in (lesson(labels, distil=parts(labels, probs, [0.3])), lesson([[0.18, 0.79, 0.03]])):
        logits = LOGITS.clone().requires_grad_()
        mean_loss(logits, given, "single", 0.0).backward()
        both.append(logits.grad[0].tolist())
    assert both[0] == pytest.approx(both[1], abs=1e-6)


def test_weights_count_rows_as_often():
    labels = np.eye(3)[[0, 1, 2]]
    logits = torch.tensor(np.random.default_rng(0).normal(size=(3, 3)), dtype=torch.float32)
    weighed = mean_loss(logits, lesson(labels, weights=[2, 1, 0.001]), "single", 0.05)
    rows = [0, 0, 1]
    assert weighed.item() == pytest.approx(
        mean_loss(logits[rows], lesson(labels[rows]), "single", 0.05).item(), abs=2e-3
    )


def test_the_bounds_are_the_entropies_of_the_prior_and_of_the_targets():
    labels = np.eye(2)[[0, 0, 0, 1]]
    same, knowing = bounds(lesson(labels), "single", 0.0)
    assert same == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=1e-4)
    assert knowing == pytest.approx(0, abs=1e-3)
    same, _ = bounds(lesson(np.eye(5)[np.arange(10) % 5]), "single", 0.0)
    assert same == pytest.approx(np.log(5), abs=1e-4)
    probs = [[0.9, 0.1], [0.2, 0.8]]
    assert bounds(lesson(probs, distil=parts(np.eye(2), probs, [1, 1], 2.0)), "single", 0.0)[1] < 1e-4
