"""The two baselines of every search: random subsets, and all of them."""

from math import prod

import numpy as np

from finegpr.arrays import Bools, Floats, Ints
from finegpr.errors import ConfigError
from search.space import Space

GENERATION = 50
MAX_EXHAUSTIVE = 2**20


def random_masks(space: Space, num: int, *, seed: int) -> Bools:
    """Masks (num, bits) decoded from coordinates that are uniform in [-1, 1]; duplicates may occur."""
    return space.decode(np.random.default_rng(seed).uniform(-1, 1, (num, space.num_bits)))


class Random:
    """Uniform coordinates, decoded. Learns nothing."""

    def __init__(self, space: Space, *, seed: int, evaluations: int) -> None:
        self.population = min(GENERATION, evaluations)
        self._space = space
        self._random = np.random.default_rng(seed)

    def ask(self, num: int) -> Bools:
        """Exactly ``num`` masks."""
        return self._space.decode(self._random.uniform(-1, 1, (num, self._space.num_bits)))

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Nothing to learn."""


class Exhaustive:
    """Every feasible mask once, in a fixed order. Refuses more than 2^20 subsets with a ConfigError."""

    def __init__(self, space: Space) -> None:
        if space.num_subsets > MAX_EXHAUSTIVE:
            raise ConfigError(
                f"exhaustive search is for at most {MAX_EXHAUSTIVE} subsets, got {space.num_subsets}; use swarm"
            )
        self.population = GENERATION
        self._space = space
        self._next_subset = 0
        self._waiting: list[Bools] = []

    def ask(self, num: int) -> Bools:
        """The next ``num`` feasible masks, fewer at the end."""
        while len(self._waiting) < num and self._next_subset < self._space.num_subsets:
            stop = min(self._next_subset + 1024, self._space.num_subsets)
            masks = enumerate_masks(self._space, np.arange(self._next_subset, stop))
            self._waiting += list(masks[self._space.feasible(masks)])
            self._next_subset = stop
        taken, self._waiting = self._waiting[:num], self._waiting[num:]
        return np.array(taken, dtype=bool).reshape(-1, self._space.num_bits)

    def tell(self, masks: Bools, losses: Floats) -> None:
        """Nothing to learn."""


def make_random(space: Space, options: object, *, seed: int, evaluations: int) -> Random:  # noqa: ARG001
    """Random masks."""
    return Random(space, seed=seed, evaluations=evaluations)


def make_exhaustive(space: Space, options: object, *, seed: int, evaluations: int) -> Exhaustive:  # noqa: ARG001
    """All masks."""
    return Exhaustive(space)


def enumerate_masks(space: Space, numbers: Ints) -> Bools:
    """The masks (n, bits) with these numbers, 0 <= number < ``space.num_subsets``; each mask has one number."""
    masks = np.zeros((len(numbers), space.num_bits), dtype=bool)
    sizes = [len(values) for values in space.values]
    for place, (block, size) in enumerate(zip(space.blocks, sizes, strict=True)):
        below = prod(2**after - 1 for after in sizes[place + 1 :])
        chosen = numbers // below % (2**size - 1) + 1
        masks[:, block] = (chosen[:, None] >> np.arange(size)) & 1
    return masks
