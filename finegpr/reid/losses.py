"""What a re-ID network is trained to make small.

A new loss is one module with a function like the ones here and one line in LOSSES; a recipe names it.
torch is imported where a loss is computed, because settings name losses and are read without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finegpr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def batch_hard_triplet(features: "Tensor", labels: "Tensor", *, margin: float | None = 0.3) -> "Tensor":
    """Triplet loss on the farthest positive and the nearest negative of every anchor (Hermans et al. 2017, eq. 5).

    ``features`` (n, d) float, ``labels`` (n,) integer. Euclidean distance, not squared; mean over all anchors, zeros
    included; the hinge [max_pos - min_neg + margin]_+, or softplus(max_pos - min_neg) when ``margin`` is None. An
    anchor whose identity has no other image has max_pos 0. Gradients are finite where two features are equal.
    Raises InputError when all labels are the same, because then there is no negative.
    """
    import torch
    from torch.nn import functional as F

    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise InputError(f"a triplet needs at least 2 identities in a batch of {len(labels)}, got one")
    # Not through a matrix product: that form loses near distances to cancellation. Its gradient at 0 is 0.
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    hardest_positive = distance.masked_fill(~same, 0).amax(dim=1)
    hardest_negative = distance.masked_fill(same, torch.inf).amin(dim=1)
    gap = hardest_positive - hardest_negative
    per_anchor = F.softplus(gap) if margin is None else F.relu(gap + margin)
    return per_anchor.mean()


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a loss may look at: ``features`` (n, d) as pooled, and ``logits`` (n, classes) of the classifier."""

    features: "Tensor"
    logits: "Tensor"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """``value(outputs, labels)`` is a scalar mean over the batch; ``needs_pairs`` asks for P x K batches."""

    value: "Callable[[Outputs, Tensor], Tensor]"
    needs_pairs: bool


def _cross_entropy(outputs: Outputs, labels: "Tensor") -> "Tensor":
    from torch.nn import functional as F

    return F.cross_entropy(outputs.logits, labels)


LOSSES: Mapping[str, Loss] = {
    "softmax": Loss(value=_cross_entropy, needs_pairs=False),
    "triplet": Loss(value=lambda outputs, labels: batch_hard_triplet(outputs.features, labels), needs_pairs=True),
}


def parse_losses(text: str) -> tuple[Loss, ...]:
    """The losses that ``text`` adds up, such as ``softmax+triplet``. Raises ValueError for a name not in LOSSES."""
    names = text.split("+")
    if unknown := [name for name in names if name not in LOSSES]:
        raise ValueError(f"no loss {unknown[0]!r}; join any of {', '.join(LOSSES)} with '+'")
    return tuple(LOSSES[name] for name in names)
