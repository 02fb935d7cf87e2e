"""Trains a network: several starts, restarts, early stop, and going on where a killed training stood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmal.batching import by_length
from llmal.context import Context
from llmal.records import Kind
from llmal.train.checkpoint import Checkpoint, Place
from llmal.train.objective import Lesson, bounds, cross_entropy, mean_loss

if TYPE_CHECKING:
    import torch

    from llmal.train.finetune import Finetune, TransformerModel

MIN_STEPS = 150
"""Optimiser steps a small data set gets at least: below it the head of a fresh classifier has not settled."""

RESTARTS = 2
"""Most starts that are given up because the training loss stays where it began (Mosbach et al. 2021)."""

STUCK = 0.02
"""Part of the way from saying the same of every text to knowing every target; a training whose last pass has
gone less of it has learnt nothing."""

TOKENS_A_BATCH = 4096
"""Padded tokens of one batch at prediction: keeps two cores busy without outgrowing their caches."""

BETWEEN = 32
"""Batches of one stretch, within which texts are sorted by length; more make batches less random."""


class Course(NamedTuple):
    """All that determines a training, beside the network it starts from.

    Attributes:
        plan: the options.
        kind: of the labels.
        lesson: what to learn from.
        held: what to stop and choose by; None where nothing is held out.
        seed: of everything random.
    """

    plan: Finetune
    kind: Kind
    lesson: Lesson
    held: Lesson | None
    seed: int


class Loop:
    """One training.

    Args:
        course: see there.
        fresh: makes a network with a new head, drawn from torch's generator.
        kept: where to keep the state.
        ctx: shared context.
    """

    def __init__(
        self, course: Course, fresh: Callable[[], TransformerModel], kept: Checkpoint, ctx: Context
    ) -> None:
        self.plan, self.kind, self.lesson, self.held, self.seed = course
        self.fresh, self.kept, self.ctx = fresh, kept, ctx
        steps = -(-len(self.lesson.tokens) // self.plan.batch_size)
        self.epochs = max(self.plan.epochs, -(-MIN_STEPS // steps))
        self.total = self.epochs * steps
        self.place = Place()
        self.best: dict[str, torch.Tensor] = {}

    def run(self) -> TransformerModel:
        """The network of the lowest held-out loss, else of the start with the lowest training loss.

        Sets torch's generators: call it where that does no harm.
        """
        found = self.kept.read()
        while True:
            model = self._start(found)
            found = None
            learnt = self._attempt(model)
            at = self.place
            self.place = Place(at.attempt + 1, at.stuck + (not learnt), best=at.best)
            if self.place.attempt - self.place.stuck == self.plan.seeds:
                break
        _put(self.weights, self.best)
        self.kept.remove()
        model.network.eval()
        return model

    def _start(self, found: tuple[Place, dict[str, torch.Tensor]] | None) -> TransformerModel:
        """A network at the beginning of an attempt, or where a checkpoint left it."""
        import torch

        if found is not None:
            self.place = found[0]
        torch.manual_seed(self.seed + self.place.attempt)
        model = self.fresh()
        model.network.get_input_embeddings().requires_grad_(not self.plan.freeze_words)
        self.weights = {name: w for name, w in model.network.named_parameters() if w.requires_grad}
        rate, decay = self.plan.learning_rate, self.plan.weight_decay
        self.optimiser = torch.optim.AdamW(self.weights.values(), rate, weight_decay=decay, fused=True)
        if found is not None:
            self._restore(found[1])
            self.ctx.progress.say(f"train: goes on at step {self.place.step} of {self.total}")
        return model

    def _attempt(self, model: TransformerModel) -> bool:
        """Train to the end; False where it was given up because nothing is being learnt."""
        at, mean = self.place, 0.0
        title = "train finetune" if self.plan.seeds == 1 else f"train finetune, start {at.attempt + 1}"
        with self.ctx.progress.task(title, self.total) as advance:
            advance(at.step)
            for epoch in range(at.epoch, self.epochs):
                at.epoch = epoch
                for rows in self._batches()[at.batch :]:
                    advance(1, note=f"loss {self._step(model, rows):.3f}")
                    if self.kept.due():
                        self.kept.write(at, self._state())
                mean = at.loss / at.weight
                at.batch, at.loss, at.weight = 0, 0.0, 0.0
                if self._is_enough(model, mean):
                    break
        if not self._is_stuck(mean):
            return True
        self.ctx.progress.say(f"train: the loss stays at {mean:.3f}; training starts again from another draw")
        return False

    def _batches(self) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, self.place.attempt, self.place.epoch])
        return list(batches([len(t) for t in self.lesson.tokens], self.plan.batch_size, rng))

    def _step(self, model: TransformerModel, rows: NDArray[np.int64]) -> float:
        """One step of the optimiser; the batch's loss."""
        import torch

        at = self.place
        share = rate(at.step, self.total, self.plan.warmup)
        self.optimiser.param_groups[0]["lr"] = self.plan.learning_rate * share
        some = self.lesson.some(rows)
        model.network.train()
        loss = mean_loss(model.logits(some.tokens), some, self.kind, self.plan.smoothing)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimiser.step()
        value, weight = float(loss.item()), float(some.weights.sum())
        at.step, at.batch = at.step + 1, at.batch + 1
        at.loss, at.weight = at.loss + weight * value, at.weight + weight
        return value

    def _is_stuck(self, loss: float) -> bool:
        """Whether the training has taught the network nothing; slow ones are given all their steps."""
        if self.place.stuck == RESTARTS:
            return False
        same, knowing = bounds(self.lesson, self.kind, self.plan.smoothing)
        return bool(same - loss < STUCK * (same - knowing))

    def _is_enough(self, model: TransformerModel, loss: float) -> bool:
        """Whether the held-out loss has stopped falling; keeps the weights where they are the best so far."""
        at = self.place
        if self.held is not None:
            loss = held_out_loss(model, self.held)
            at.since = 0 if loss < at.lowest else at.since + 1
            at.lowest = min(loss, at.lowest)
        elif self.plan.seeds == 1 or at.epoch + 1 < self.epochs:
            return False
        if loss < at.best:
            at.best = loss
            self.best = {name: w.detach().clone() for name, w in self.weights.items()}
        return at.since >= self.plan.patience and at.step >= MIN_STEPS

    def _state(self) -> dict[str, torch.Tensor]:
        """Everything that cannot be drawn again."""
        import torch

        kept = {f"best/{name}": w for name, w in self.best.items()} | {"rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            kept["rng of the device"] = torch.cuda.get_rng_state()
        for name, w in self.weights.items():
            kept[f"now/{name}"] = w
            moments = self.optimiser.state.get(w, {})
            kept |= {f"{key}/{name}": moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments}
        return kept

    def _restore(self, kept: dict[str, torch.Tensor]) -> None:
        import torch

        _put(self.weights, {k.removeprefix("now/"): v for k, v in kept.items() if k.startswith("now/")})
        self.best = {k.removeprefix("best/"): v for k, v in kept.items() if k.startswith("best/")}
        for name, w in self.weights.items():
            if f"exp_avg/{name}" in kept:
                moments = {key: kept[f"{key}/{name}"].to(w.device) for key in ("exp_avg", "exp_avg_sq")}
                step = torch.tensor(float(self.place.step), device=w.device)
                self.optimiser.state[w] = {"step": step, **moments}
        torch.set_rng_state(kept["rng"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(kept["rng of the device"])


def _put(weights: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)


def held_out_loss(model: TransformerModel, held: Lesson) -> float:
    """Weighted mean cross-entropy against the targets as they are, in nats."""
    import torch

    total = 0.0
    model.network.eval()
    with torch.inference_mode():
        for rows in by_length([len(t) for t in held.tokens], TOKENS_A_BATCH):
            some = held.some(rows)
            logits = model.logits(some.tokens)
            each = cross_entropy(logits, torch.from_numpy(some.targets).to(logits.device), model.kind)
            total += float((each.cpu().numpy() * some.weights).sum())
    return total / float(held.weights.sum())


def rate(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at a step of `total`: it rises over `warmup` of them, then falls to 0."""
    rise = max(1, int(warmup * total))
    return min((step + 1) / rise, (total - step) / max(1, total - rise))


def batches(
    lengths: list[int] | NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Random batches of texts of similar length: shuffled, sorted within stretches, batches shuffled."""
    order = rng.permutation(len(lengths))
    every = np.array(lengths)
    stretches = [order[i : i + BETWEEN * size] for i in range(0, len(order), BETWEEN * size)]
    made = [
        s[i : i + size]
        for s in (s[np.argsort(every[s], kind="stable")] for s in stretches)
        for i in range(0, len(s), size)
    ]
    for i in rng.permutation(len(made)):
        yield made[i]
