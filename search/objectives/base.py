"""What an objective is: this page is all that its author needs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from finegpr.arrays import Floats
from finegpr.subset import Subset
from search.measured import Measured

if TYPE_CHECKING:
    from search.objectives.embedding import CellEmbedding
    from search.objectives.kernels import ImageKernel
    from search.objectives.surrogate import SurrogateReport


class Objective(Protocol):
    """Scores subsets. ``unit`` names the score's unit, ``higher_is_better`` its direction."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def score(self, subsets: list[Subset]) -> Floats:
        """Scores (n,); NaN where a subset could not be scored."""


class Form(Protocol):
    """What an objective makes of the measurements: a function of cell shares."""

    def score(self, shares: Floats) -> Floats:
        """Scores (n,) at shares (n, C), rows summing to 1."""


class Make(Protocol):
    """Makes the form of an objective, and the validation of the surrogate that filled unmeasured cells, if one did."""

    def __call__(self, measured: Measured, *, seed: int) -> "tuple[Form, SurrogateReport | None]": ...


class Embed(Protocol):
    """Turns measurements into the embedding of a quadratic objective."""

    def __call__(self, measured: Measured) -> "CellEmbedding": ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One objective over measurements.

    ``unit`` is that of its score. ``quadratic``: the form is a ``CellEmbedding``, unbiased where every cell was
    measured, which adaptive sampling, intervals and identity-level attributes need. Without ``weighed`` each term is
    measured by itself, so that scale and weights of the distance change nothing. ``kernel``, if it has one, gives the
    effects of people's attributes their length; without one, none of these can be searched.
    """

    unit: str
    make: Make
    quadratic: bool = False
    weighed: bool = True
    higher_is_better: bool = False
    kernel: "ImageKernel | None" = None
