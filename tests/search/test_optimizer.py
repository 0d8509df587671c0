from pathlib import Path

import numpy as np
import pytest

from finegpr.arrays import Bools, Floats
from finegpr.errors import ConfigError
from search.loop import SearchConfig
from search.optimizers import OPTIMIZERS, check_optimizer, kind_of, make_masks, make_optimizer
from search.optimizers.baselines import enumerate_masks
from search.optimizers.descent import Descent
from search.optimizers.greedy import Greedy
from search.optimizers.nevergrad import Nevergrad
from search.optimizers.numpy_swarm import NumpySwarm, NumpySwarmOptions
from search.optimizers.polish import Polish, neighbours
from search.optimizers.pso import PsoOptions, population_for
from search.optimizers.restart import Restarting
from search.optimizers.share_model import ShareModel
from search.simulation import simulate
from search.space import Budget, Space, SpaceConfig
from search.testing import CHECKS, TableObjective, run

COMPOSED = ("numpy_swarm+polish", "descent+restart", "greedy+polish", "nevergrad:DE+restart+polish")


@pytest.fixture(scope="module")
def constrained() -> Space:
    """Arcs of 8 viewpoints, two or three of 5 values, one value fixed; 10 to 35 % of the images."""
    simulation = simulate((8, 5, 3), seed=0)
    config = SpaceConfig(
        arcs=("viewpoint",),
        least_values={"attribute1": 2},
        most_values={"attribute1": 3},
        fixed={"attribute2": ("value0", "value1")},
    )
    budget = Budget(images=60, identities=9, least=0.1, most=0.35)
    return Space(simulation.cells, simulation.identity, budget, seed=0, config=config)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", [*OPTIMIZERS, *COMPOSED])
def test_contract(name: str, check: str, space: Space, tmp_path: Path) -> None:
    if check == "survives_duplicates":  # every subset of a space of 45
        simulation = simulate((4, 2), seed=0)
        space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    CHECKS[check](kind_of(name), space, tmp_path)


@pytest.mark.parametrize(
    "check", ["proposes_subsets_of_the_space", "keeps_to_the_budget", "is_told_what_it_asked", "resumes"]
)
@pytest.mark.parametrize("name", [*OPTIMIZERS, "numpy_swarm+polish"])
def test_contract_under_constraints(name: str, check: str, constrained: Space, tmp_path: Path) -> None:
    CHECKS[check](kind_of(name), constrained, tmp_path)


@pytest.mark.parametrize("name", ["swarm", "pso", "numpy_swarm", "numpy_swarm+polish", "descent+restart"])
def test_a_learner_beats_random(name: str, space: Space, tmp_path: Path) -> None:
    learned = [run(kind_of(name), space, tmp_path / f"{name}{seed}", seed=seed).score for seed in range(4)]
    guessed = [run(OPTIMIZERS["random"], space, tmp_path / f"random{seed}", seed=seed).score for seed in range(4)]
    assert np.mean(learned) < np.mean(guessed)


def test_exhaustive_finds_the_optimum_of_every_subset(space: Space, tmp_path: Path) -> None:
    result = run(OPTIMIZERS["exhaustive"], space, tmp_path, evaluations=space.num_subsets)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    assert len(np.unique(masks, axis=0)) == space.num_subsets
    fitting = masks[space.feasible(masks)]
    objective = TableObjective(space, np.arange(space.num_bits) % 2 == 0)
    assert result.num_evaluations == len(fitting)
    assert result.num_infeasible == 0
    assert result.score == pytest.approx(objective.score([space.subset(mask) for mask in fitting]).min())


def test_the_swarm_finds_that_optimum_with_a_tenth_of_the_evaluations(space: Space, tmp_path: Path) -> None:
    best = run(OPTIMIZERS["exhaustive"], space, tmp_path / "all", evaluations=space.num_subsets).score
    assert run(OPTIMIZERS["swarm"], space, tmp_path / "swarm", evaluations=250).score == best


def test_exhaustive_refuses_a_large_space() -> None:
    simulation = simulate((12, 5, 5), seed=0, num_identities=3)
    space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    with pytest.raises(ConfigError, match="at most 1048576 subsets, got 3935295"):
        make_optimizer("exhaustive", space, seed=0, evaluations=10)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("genetic", {}, "no optimizer 'genetic'; known: swarm, pso, numpy_swarm, greedy"),
        ("nevergrad:Diskrete1+1", {}, "Nevergrad has no optimizer 'Diskrete1'; did you mean .*Discrete"),
        ("nevergrad:zzz", {}, "Nevergrad has no optimizer 'zzz'; for example PSO"),
        ("pso+polsh", {}, "after \\+ comes restart or polish, got 'polsh'"),
        ("numpy_swarm", {"popsize": 4}, "numpy_swarm has no option 'popsize'; known: population, encoding, topology"),
        ("pso+polish", {"omga": 1.0}, "no option 'omga'; did you mean 'omega'"),
        ("random", {"population": 4}, "no option 'population'; known: none"),
        ("numpy_swarm", {"topology": "star"}, "optimizer_options.topology: .*'global' or 'ring', got 'star'"),
        ("pso", {"population": 0}, "optimizer_options.population: .*greater than or equal to 2, got 0"),
    ],
)
def test_an_unknown_name_or_option_is_refused(name: str, options: dict[str, float], said: str, space: Space) -> None:
    with pytest.raises(ConfigError, match=said):
        check_optimizer(name, options)
    with pytest.raises(ConfigError, match=said):
        make_optimizer(name, space, seed=0, evaluations=10, options=options)
    with pytest.raises(ValueError, match=said):
        SearchConfig(optimizer=name, optimizer_options=options)


def test_the_swarms_constants_are_those_that_journals_were_written_with() -> None:
    exact, rounded = PsoOptions(), NumpySwarmOptions()
    assert (exact.omega, exact.phip, exact.phig) == (0.7213475204444817, 1.1931471805599454, 1.1931471805599454)
    assert (rounded.omega, rounded.phip, rounded.phig) == (0.7213, 1.1931, 1.1931)


def test_options_reach_the_optimizer_and_its_polish(space: Space) -> None:
    optimizer = make_optimizer("numpy_swarm", space, seed=0, evaluations=1000, options={"population": 7})
    assert (optimizer.population, len(optimizer.ask(100))) == (7, 7)
    short, long = (
        make_masks("random+polish", space, seed=0, evaluations=1000, options={"most_first": most}) for most in (30, 90)
    )
    same = [bool((play(short, space) == play(long, space)).all()) for _ in range(3)]
    assert same == [True, True, False]  # generations of 50, of which the first has 20 of the polish's size


@pytest.mark.parametrize(("evaluations", "population"), [(5, 5), (40, 20), (2000, 20), (5000, 50), (100_000, 80)])
def test_the_population_follows_the_evaluations(evaluations: int, population: int, space: Space) -> None:
    assert population_for(evaluations) == population
    assert make_optimizer("pso", space, seed=0, evaluations=evaluations).population == population


def loss_of(space: Space, masks: Bools) -> Floats:
    """A linear loss whose optimum is half of the values; ties are rare."""
    return (masks != (np.arange(space.num_bits) % 3 == 0)).sum(axis=1) + masks @ np.linspace(0, 0.01, space.num_bits)


def play(optimizer: object, space: Space, num: int = 20) -> Bools:
    """One generation."""
    masks: Bools = optimizer.ask(num)  # type: ignore[attr-defined]
    optimizer.tell(masks, loss_of(space, masks))  # type: ignore[attr-defined]
    return masks


@pytest.mark.parametrize("name", ["pso", "numpy_swarm"])
def test_a_collapsed_swarm_restarts(name: str, space: Space) -> None:
    optimizer = make_masks(name, space, seed=0, evaluations=2000, options={})
    assert isinstance(optimizer, Restarting)
    for _ in range(80):
        play(optimizer, space)
    assert optimizer.num_restarts >= 1


class Counting:
    """Proposes the same mask again and again, or nothing after its first generation."""

    population = 4

    def __init__(self, mask: Bools, *, ends: bool) -> None:
        self._mask = mask
        self._ends = ends
        self._num_asked = 0

    def ask(self, num: int) -> Bools:
        self._num_asked += 1
        return np.repeat(self._mask[None], 0 if self._ends and self._num_asked > 1 else num, axis=0)

    def tell(self, masks: Bools, losses: Floats) -> None:
        assert len(masks) == len(losses)


def test_a_restart_comes_after_two_stale_generations_or_at_the_end(space: Space) -> None:
    masks = space.decode(np.random.default_rng(0).normal(size=(10, space.num_bits)))
    seeds: list[int] = []

    def make(seed: int, *, ends: bool) -> Counting:
        seeds.append(seed)
        return Counting(masks[len(seeds)], ends=ends)

    stuck = Restarting(lambda seed: make(seed, ends=False), seed=0)
    assert [(play(stuck, space, 4), stuck.num_restarts)[1] for _ in range(6)] == [0, 0, 1, 1, 1, 2]
    ended = Restarting(lambda seed: make(seed, ends=True), seed=0)
    assert [(play(ended, space, 4), ended.num_restarts)[1] for _ in range(3)] == [0, 1, 2]
    assert len(set(seeds[:3])) == 3


def test_particles_move_as_the_formula_says(space: Space) -> None:
    """Speeds and positions against the update written out for one particle at a time."""
    options = NumpySwarmOptions(population=4, topology="ring", omega=0.5, phip=1.0, phig=2.0)
    swarm = NumpySwarm(space, options, population=4, seed=3)
    random = np.random.default_rng(3)
    x, v = random.normal(size=(2, 4, space.num_bits))
    own, own_loss = np.zeros_like(x), np.full(4, np.inf)
    for _ in range(6):
        masks = swarm.ask(4)
        np.testing.assert_array_equal(masks, space.decode(x))
        losses = loss_of(space, masks)
        swarm.tell(masks, losses)
        p, g = random.random((2, 4, space.num_bits))
        for i in range(4):
            if losses[i] < own_loss[i]:
                own[i], own_loss[i] = x[i], losses[i]
        for i in range(4):
            leader = min([(i - 1) % 4, i, (i + 1) % 4], key=lambda j: own_loss[j])
            v[i] = 0.5 * v[i] + p[i] * (own[i] - x[i]) + 2.0 * g[i] * (own[leader] - x[i])
        x = x + v


def test_a_binary_particle_is_in_with_the_odds_of_its_speed() -> None:
    """Without pulls and with full inertia the speed stands still, and values are in as often as it says."""
    options = NumpySwarmOptions(population=2, encoding="binary", omega=1.0, phip=0.0, phig=0.0)
    simulation = simulate((6, 2), seed=0)
    free = Space(simulation.cells, simulation.identity, Budget(images=1), seed=0)
    swarm = NumpySwarm(free, options, population=2, seed=0)
    speed = np.random.default_rng(0).normal(size=(2, 2, free.num_bits))[1]
    drawn = np.stack([play(swarm, free) for _ in range(3000)])
    # Repair turns a value over only where an attribute would be empty: rare for six values, so compare these.
    empty = np.prod(1 / (1 + np.exp(speed[:, :6])), axis=1)
    expected = 1 / (1 + np.exp(-speed[:, :6]))
    assert (np.abs(drawn.mean(axis=0)[:, :6] - expected) < 0.03 + empty[:, None]).all()


def test_nevergrad_sees_the_losses_it_is_told(space: Space) -> None:
    """Its recommendation is the best coordinates that it asked for."""
    import nevergrad

    optimizer = Nevergrad(space, nevergrad.optimizers.registry["DE"], population=10, seed=0)
    masks = np.concatenate([play(optimizer, space, 10) for _ in range(5)])
    best = space.decode(optimizer._optimizer.recommend().value[None])[0]
    assert loss_of(space, best[None])[0] == loss_of(space, masks).min()


def test_what_nevergrad_runs_in_threads_or_lacks_a_package_for_is_refused(space: Space) -> None:
    with pytest.raises(ConfigError, match="Cobyla of Nevergrad runs in a thread of its own"):
        make_optimizer("nevergrad:Cobyla", space, seed=0, evaluations=10)

    class Lacking:
        name = "Lacking"

        def ask(self) -> None:
            raise ModuleNotFoundError("No module named 'ax'")

    with pytest.raises(ConfigError, match="Lacking of Nevergrad needs a package: No module named 'ax'; install it"):
        Nevergrad(space, lambda *_, **__: Lacking(), population=4, seed=0).ask(4)


def test_greedy_takes_the_best_values_of_each_attribute() -> None:
    """A loss that is a sum over values is greedy's own: the wanted set is among the combinations."""
    simulation = simulate((5, 4, 3), seed=0)
    free = Space(simulation.cells, simulation.identity, Budget(images=1), seed=0)
    cost = np.where(np.arange(free.num_bits) % 3 == 0, -1.0, 1.0)
    greedy = Greedy(free, evaluations=100)
    alone = greedy.ask(100)
    assert [mask[block].sum() for mask in alone[:5] for block in free.blocks] == [1, 4, 3] * 5
    greedy.tell(alone, alone @ cost)
    combined = greedy.ask(100)
    assert (combined == (cost < 0)).all(axis=1).any()
    assert len(greedy.ask(100)) == 0


def test_descent_ends_where_no_flip_is_better(space: Space) -> None:
    descent = Descent(space, passes=20, seed=0, evaluations=10_000)
    best, lowest = np.empty(0, dtype=bool), np.inf
    while len(masks := descent.ask(5)):
        losses = loss_of(space, masks)
        descent.tell(masks, losses)
        if losses.min() < lowest:
            best, lowest = masks[losses.argmin()], losses.min()
    flips = np.stack([best ^ (np.arange(space.num_bits) == bit) for bit in range(space.num_bits)])
    whole = np.all([flips[:, block].any(axis=1) for block in space.blocks], axis=0)
    flips = flips[whole][space.feasible(flips[whole])]
    assert loss_of(space, flips).min() >= lowest


def test_neighbours_are_all_feasible_masks_of_one_change(space: Space, constrained: Space) -> None:
    """Against all masks of the space, by their distance."""
    for each in (space, constrained):
        masks = enumerate_masks(each, np.arange(each.num_subsets))
        masks = masks[each.feasible(masks)]
        centre = masks[len(masks) // 2]
        apart, sizes = (masks != centre).sum(axis=1), masks.sum(axis=1)
        near = (apart == 1) | ((apart == 2) & (sizes == centre.sum()))
        found = neighbours(each, centre)
        assert {mask.tobytes() for mask in found} == {mask.tobytes() for mask in masks[near]}
        assert len(found) == near.sum() > 0


def test_polish_ends_where_no_neighbour_is_better_and_proposes_nothing_twice(space: Space) -> None:
    """A linear loss has one optimum within the budget's bounds by exchanges, which descent must reach."""
    polish = Polish(space, seed=0)
    start = space.decode(np.ones((1, space.num_bits)))
    polish.learn(start, loss_of(space, start))
    asked = np.concatenate([play(polish, space) for _ in range(15)])
    assert len(np.unique(asked, axis=0)) == len(asked)
    masks = enumerate_masks(space, np.arange(space.num_subsets))
    assert polish.best_loss == pytest.approx(loss_of(space, masks[space.feasible(masks)]).min())


def test_the_swarm_ends_by_itself_where_all_near_the_best_is_known(tmp_path: Path) -> None:
    simulation = simulate((4, 3), seed=0)
    space = Space(simulation.cells, simulation.identity, Budget(images=20), seed=0)
    best = run(OPTIMIZERS["exhaustive"], space, tmp_path / "all", evaluations=space.num_subsets).score
    result = run(OPTIMIZERS["swarm"], space, tmp_path / "swarm", evaluations=1000)
    assert (result.score, result.stopped) == (best, "the optimizer has nothing new to propose")
    known = {trial.subset.key for trial in result.history}
    near = neighbours(space, space.mask(result.subset))
    assert known.issuperset(space.subset(mask).key for mask in near)


def test_the_model_learns_a_distance_of_means(space: Space) -> None:
    """The squared distance of mean main effects is a function of the shares; a linear model of bits misses most."""
    random = np.random.default_rng(0)
    effects = random.normal(size=(space.num_bits, 6))
    masks = np.unique(space.decode(random.normal(size=(600, space.num_bits))), axis=0)
    masks = masks[random.permutation(len(masks))]
    shares = np.concatenate([masks[:, b] / masks[:, b].sum(axis=1, keepdims=True) for b in space.blocks], axis=1)
    losses = np.square(shares @ effects - random.normal(size=6)).sum(axis=1)
    model = ShareModel(space)
    model.fit(masks[:300], losses[:300])
    linear, *_ = np.linalg.lstsq(np.column_stack([masks[:300], np.ones(300)]), losses[:300], rcond=None)
    of_bits = np.column_stack([masks[300:], np.ones(len(masks) - 300)]) @ linear
    assert np.corrcoef(model.predict(masks[300:]), losses[300:])[0, 1] > 0.97
    assert np.corrcoef(of_bits, losses[300:])[0, 1] < 0.9


def test_the_model_bears_equal_losses_and_penalties(space: Space) -> None:
    masks = np.unique(space.decode(np.random.default_rng(0).normal(size=(80, space.num_bits))), axis=0)
    for losses in (np.zeros(len(masks)), np.full(len(masks), 1e12), np.where(masks[:, 0], 1e12, loss_of(space, masks))):
        model = ShareModel(space)
        model.fit(masks, losses)
        assert np.isfinite(model.predict(masks)).all()
    model.fit(masks[:1], losses[:1])
    assert np.isfinite(model.predict(masks)).all()
