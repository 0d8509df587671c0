"""Which optimizers there are; ``base`` says what one is. A new one is a module, a line here and nothing else.

Any name can be followed by ``+restart`` (a new one when stuck) and ``+polish`` (a local search for the rest of the
evaluations), as in ``numpy_swarm+polish``; ``nevergrad:DE`` is Nevergrad's optimizer of that name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import ValidationError, create_model

from finegpr.config import Config
from finegpr.errors import ConfigError, did_you_mean
from search.optimizers.base import Make, MaskOptimizer
from search.optimizers.baselines import make_exhaustive, make_random
from search.optimizers.descent import DescentOptions, make_descent
from search.optimizers.greedy import make_greedy
from search.optimizers.nevergrad import NevergradOptions, make_nevergrad, named
from search.optimizers.numpy_swarm import NumpySwarmOptions, make_numpy_swarm
from search.optimizers.polish import Polished, PolishOptions
from search.optimizers.proposer import MakeOptimizer, Optimizer, Proposer
from search.optimizers.pso import PsoOptions, make_pso
from search.optimizers.restart import Restarting
from search.space import Space
from search.trial import Proposal

Options = Mapping[str, bool | int | float | str]
OptionsT = TypeVar("OptionsT", bound=Config)

NEVERGRAD = "nevergrad:"


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[OptionsT]):
    """One optimizer of masks: how it is made, and the model of its options."""

    make: Make[OptionsT]
    options: type[OptionsT]

    def __call__(self, space: Space, *, seed: int, evaluations: int) -> Optimizer:
        """It, with its default options."""
        return Proposer(space, self.make(space, self.options(), seed=seed, evaluations=evaluations))


def restarted(kind: Kind[OptionsT]) -> Kind[OptionsT]:
    """A new one of this kind whenever the last is stuck."""

    def make(space: Space, options: OptionsT, *, seed: int, evaluations: int) -> MaskOptimizer:
        return Restarting(lambda seed: kind.make(space, options, seed=seed, evaluations=evaluations), seed=seed)

    return Kind(make=make, options=kind.options)


def polished(kind: Kind[Any]) -> Kind[Any]:
    """One of this kind, then the polish. Its options are those of both."""

    def make(space: Space, options: PolishOptions, *, seed: int, evaluations: int) -> MaskOptimizer:
        first = kind.make(space, options, seed=seed, evaluations=evaluations)
        return Polished(first, space, options, seed=seed, evaluations=evaluations)

    return Kind(make=make, options=create_model("PolishedOptions", __base__=(PolishOptions, kind.options)))


_PSO = Kind(make=make_pso, options=PsoOptions)
OPTIMIZERS: Mapping[str, Kind[Any]] = {
    "swarm": polished(_PSO),  # the default, see results/optimizer-regret.md
    "pso": _PSO,
    "numpy_swarm": Kind(make=make_numpy_swarm, options=NumpySwarmOptions),
    "greedy": Kind(make=make_greedy, options=Config),
    "descent": Kind(make=make_descent, options=DescentOptions),
    "random": Kind(make=make_random, options=Config),
    "exhaustive": Kind(make=make_exhaustive, options=Config),
}
MODIFIERS: Mapping[str, Callable[[Kind[Any]], Kind[Any]]] = {"restart": restarted, "polish": polished}


def kind_of(name: str) -> Kind[Any]:
    """The kind of optimizer called ``name``, with its modifiers. Raises ConfigError for an unknown name."""
    first, *modifiers = name.split("+")
    if first.startswith(NEVERGRAD):
        named(first.removeprefix(NEVERGRAD))
        kind: Kind[Any] = Kind(make=partial(make_nevergrad, first.removeprefix(NEVERGRAD)), options=NevergradOptions)
    elif first in OPTIMIZERS:
        kind = OPTIMIZERS[first]
    else:
        raise ConfigError(f"no optimizer {first!r}; known: {', '.join(OPTIMIZERS)}, {NEVERGRAD}<name>")
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            raise ConfigError(f"no optimizer {name!r}: after + comes {' or '.join(MODIFIERS)}, got {modifier!r}")
        kind = MODIFIERS[modifier](kind)
    return kind


def check_optimizer(name: str, options: Options) -> None:
    """Raises ConfigError for an unknown optimizer, or an option that it does not have."""
    _options(name, kind_of(name), options)


def make_masks(name: str, space: Space, *, seed: int, evaluations: int, options: Options) -> MaskOptimizer:
    """The optimizer of masks called ``name``, which ``make_optimizer`` makes proposals of."""
    kind = kind_of(name)
    return kind.make(space, _options(name, kind, options), seed=seed, evaluations=evaluations)


def make_optimizer(
    name: str, space: Space, *, seed: int, evaluations: int, options: Options | None = None
) -> Optimizer:
    """The optimizer called ``name``. Raises ConfigError for an unknown name or option or a space it cannot search."""
    return Proposer(space, make_masks(name, space, seed=seed, evaluations=evaluations, options=options or {}))


def _options(name: str, kind: Kind[OptionsT], options: Options) -> OptionsT:
    known = list(kind.options.model_fields)
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known, otherwise=f"known: {', '.join(known) or 'none'}")
            raise ConfigError(f"the optimizer {name} has no option {key!r}; {hint}")
    try:
        return kind.options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"optimizer_options.{where}: {first['msg']}, got {first['input']!r}") from None


__all__ = ["OPTIMIZERS", "Kind", "MakeOptimizer", "Optimizer", "Proposal", "check_optimizer", "make_optimizer"]
