"""Accept the labels that a student finds easy to believe without having seen them."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from llmal.clean import CLEAN, INVALID, cross_entropy, small_losses
from llmal.filter.peers import SEED, ByPeers, Crowd, Opinion


class SmallLoss(ByPeers):
    """Accept labels whose loss belongs to the smaller of two kinds, by a mixture of two Gaussians.

    A linear student on the vectors says how likely each label is without having learnt from it. The score is
    the probability that the loss is one of the small ones. A label that the student itself would give is
    accepted whatever its loss: where nearly all labels are right, the two kinds are only sure and surer.
    Where the losses are of one kind, all are accepted. Errors that the student repeats are not found.
    Source: Arazo et al. 2019; Li et al. 2020 (DivideMix); Xiao et al. 2023 (FreeAL); the exception is ours.
    """

    clean: float = Field(CLEAN, ge=0, le=1, description="probability of a small loss above which to accept")

    def weigh(self, crowd: Crowd) -> Opinion:
        """The posterior of each row's loss."""
        probs = crowd.student()
        losses = cross_entropy(probs, crowd.labels)
        found = small_losses(losses, at_least=self.clean, seed=SEED, fit=crowd.taught != INVALID)
        same = probs.argmax(axis=1) == crowd.labels
        clean = found.mask | same
        why = []
        for p, kept, agrees, given in zip(found.posterior, clean, same, np.exp(-losses), strict=True):
            said = f"a student that did not learn from it gives its label {given:.3f}"
            if found.note:
                why.append(f"{found.note}: {said}")
            elif agrees:
                why.append(f"clean {p:.3f}, and the student would say the same: {said}")
            else:
                why.append(f"clean {p:.3f} {'>' if kept else '<='} {self.clean:g}: {said}")
        return Opinion(found.posterior, clean, why)
