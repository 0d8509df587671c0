"""What an optimizer is: this page is all that its author needs."""

from typing import Protocol

from finegpr.arrays import Bools, Floats


class MaskOptimizer(Protocol):
    """Proposes masks (n, bits) of a space and learns from their losses, in synchronous generations.

    Everything it does follows from its constructor's arguments and from what it was told.
    """

    @property
    def population(self) -> int:
        """Number of masks in a full generation."""

    def ask(self, num: int) -> Bools:
        """At most ``num`` masks, at least one unless there is nothing left to propose; duplicates may occur."""

    def tell(self, masks: Bools, losses: Floats) -> None:
        """The losses (n,) of all masks of the last ``ask``, in its order: finite, lower is better."""
