"""What an optimizer is: this page is all that its author needs. Its file has a class, its options and a ``Make``."""

from typing import Protocol, TypeVar

from finegpr.arrays import Bools, Floats
from finegpr.config import Config
from search.space import Space

OptionsT = TypeVar("OptionsT", bound=Config, contravariant=True)


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


class Make(Protocol[OptionsT]):
    """Makes an optimizer of at most ``evaluations`` new masks from the model of its options, ``Config`` for none.

    Raises ConfigError for a space that it cannot search. What is slow to import is imported in it.
    """

    def __call__(self, space: Space, options: OptionsT, *, seed: int, evaluations: int) -> MaskOptimizer: ...
