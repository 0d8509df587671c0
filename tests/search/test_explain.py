"""Effects of values and their intervals, SHAP values, distances per value: against closed forms and brute force."""

from dataclasses import replace
from itertools import product
from math import factorial

import numpy as np
import pandas as pd
import pytest

from finegpr.attributes import Attribute
from finegpr.catalog import Catalog, Cells
from finegpr.mixture import Mixture
from finegpr.subset import Subset
from finegpr.weighing import Weighing
from search.analysis.explain import (
    Resampling,
    distance_contour,
    distance_importances,
    distance_spreads,
    flip_effects,
    marginal_effects,
)
from search.analysis.records import Importance
from search.measured import Measured
from search.objectives import make_objective
from search.objectives.embedding import CellEmbedding
from search.objectives.mean_distance import embed_distance
from search.objectives.mmd_linear import embed_linear
from search.objectives.samples import Samples
from search.objectives.surrogate import SurrogateReport, fit_reported, fit_surrogate
from search.optimizers.baselines import random_masks
from search.simulation import TARGET, Simulation, simulate
from search.space import Budget, MixtureSpace, Space, SpaceConfig

TRUSTED = SurrogateReport(scores=(), trusted=True, warnings=(), num_cells=0, num_unmeasured=0)


def distance_of(simulation: Simulation) -> CellEmbedding:
    return embed_distance(simulation.measured)


def objective_of(simulation: Simulation, space: Space, name: str = "mmd_linear"):
    return make_objective(name, space, simulation.measured)


def test_flips_are_scored_one_by_one(simulation: Simulation, space: Space) -> None:
    objective = objective_of(simulation, space)
    subset = space.subset(random_masks(space, 1, seed=1)[0])
    found = flip_effects(objective, subset, quantity="q", seed=0, draws=50)
    assert len(found) == space.num_bits
    base = objective.score([subset])[0]
    num_forbidden = 0
    for effect in found:
        chosen = {name: set(values) for name, values in subset.values.items()}
        chosen[effect.attribute] ^= {effect.value}
        if not chosen[effect.attribute]:
            assert (effect.effect, effect.low, effect.high, effect.allowed) == (None, None, None, False)
            continue
        mask = space.mask(Subset(chosen))[None]
        assert effect.allowed == space.feasible(mask)[0]
        num_forbidden += not effect.allowed
        score = objective.score([Subset(chosen)])[0]
        if np.isnan(score):
            # All images are taken, of people and cells alike.
            score = objective.form.score(space.cell_masks(mask) / space.cell_masks(mask).sum())[0]
        assert effect.effect == pytest.approx(score - base, abs=1e-12)
        assert effect.low is not None
        assert effect.low < effect.high
    assert 0 < num_forbidden < space.num_bits


def test_the_last_value_of_an_attribute_cannot_go(simulation: Simulation) -> None:
    space = Space(simulation.cells, simulation.identity, Budget(images=12), seed=0)
    subset = Subset({"attribute1": ["value2"], "attribute2": ["value0"]})
    found = flip_effects(objective_of(simulation, space), subset, quantity="q", seed=0, draws=5)
    gone = {each.value for each in found if each.effect is None}
    assert gone == {"value2", "value0"}
    assert all(each.allowed for each in found if each.effect is not None)


def test_the_flip_of_a_mixture_gives_a_value_the_mean_weight(simulation: Simulation) -> None:
    budget = Budget(images=60)
    space = MixtureSpace(simulation.cells, simulation.identity, budget, seed=0, config=SpaceConfig(levels=3))
    objective = objective_of(simulation, space)
    weights = {
        "viewpoint": {"0deg": 3, "72deg": 1},
        "attribute1": {"value0": 1, "value1": 1, "value2": 1},
        "attribute2": {"value0": 1, "value1": 2},
    }
    found = {
        (each.attribute, each.value): each.effect
        for each in flip_effects(objective, Mixture(weights), quantity="q", seed=0, draws=50)
    }
    assert len(found) == 5 + 4 + 3
    base = objective.score([Mixture(weights)])[0]
    with_more = {**weights, "viewpoint": {"0deg": 3, "72deg": 1, "144deg": 2}}
    assert found["viewpoint", "144deg"] == pytest.approx(objective.score([Mixture(with_more)])[0] - base)
    with_less = {**weights, "attribute1": {"value0": 1, "value2": 1}}
    assert found["attribute1", "value1"] == pytest.approx(objective.score([Mixture(with_less)])[0] - base)


def test_the_marginal_effect_of_the_distance_is_a_difference_of_means(simulation: Simulation) -> None:
    cells, embedding = simulation.cells, distance_of(simulation)
    distance = embedding.linear
    for effect in marginal_effects(embedding, cells, quantity="q", seed=0, draws=20):
        inside = (cells.frame[effect.attribute] == effect.value).to_numpy()
        expected = distance[inside].mean() - distance.mean()  # the same number of images in every cell
        assert effect.effect == pytest.approx(expected, abs=1e-9)


def test_marginal_effects_weigh_values_by_their_images(simulation: Simulation) -> None:
    images = np.random.default_rng(0).integers(1, 30, len(simulation.cells))
    cells = replace(simulation.cells, images=images)
    embedding = embed_linear(simulation.measured)
    found = marginal_effects(embedding, cells, quantity="q", seed=0, draws=20)
    for name in {effect.attribute for effect in found}:
        codes = cells.frame[name]
        of_value = {effect.value: effect.effect for effect in found if effect.attribute == name}
        weight = {value: images[(codes == value).to_numpy()].sum() / images.sum() for value in of_value}
        assert sum(weight[value] * effect for value, effect in of_value.items()) == pytest.approx(0, abs=1e-9)
        shares = np.stack([(codes == value).to_numpy() * images for value in of_value]).astype(float)
        scores = embedding.score(shares / shares.sum(axis=1, keepdims=True))
        differences = np.subtract.outer(list(of_value.values()), list(of_value.values()))
        np.testing.assert_allclose(differences, np.subtract.outer(scores, scores), atol=1e-9)


def test_cells_that_nobody_measured_are_left_out() -> None:
    world = simulate((5, 4, 3), seed=0, measured=0.6)
    embedding = distance_of(world)
    measured = embedding.num_identities > 0
    assert 0 < measured.sum() < 60
    for effect in marginal_effects(embedding, world.cells, quantity="q", seed=0, draws=20):
        inside = (world.cells.frame[effect.attribute] == effect.value).to_numpy() & measured
        expected = embedding.linear[inside].mean() - embedding.linear[measured].mean()
        assert effect.effect == pytest.approx(expected, abs=1e-9)


def one_cell(values: np.ndarray) -> CellEmbedding:
    """One cell with one image of each of n people; the score is the linear part, the mean of their values."""
    samples = Samples(
        values=values[:, None],
        names=("linear",),
        cell=np.zeros(len(values), dtype=np.int64),
        identity=np.arange(1, len(values) + 1),
        num_cells=1,
    )
    return CellEmbedding(
        coordinates=np.empty((1, 0)),
        linear=samples.means[:, 0],
        constant=0.0,
        beyond_rank=np.zeros(1),
        variance=np.zeros(1),
        num_identities=samples.num_identities,
        rank_error=0.0,
        samples=samples,
        readout=np.ones((1, 1)),
    )


@pytest.mark.parametrize("num_people", [2, 3, 30])
def test_the_standard_error_of_a_mean_is_the_textbook_one(num_people: int) -> None:
    """s / sqrt(n); drawing n of n people apart from that gives (n - 1) / n of the variance, which is put right but for
    the covariance of the counts, (n - 1) / n of a sum of deviations that is 0."""
    values = np.random.default_rng(1).normal(size=num_people)
    embedding = one_cell(values)
    drawn = Resampling(embedding, seed=0, draws=40_000).scores(np.ones((1, 1)))[0]
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.02)
    assert drawn.std() == pytest.approx(values.std(ddof=1) / np.sqrt(num_people), rel=0.02)


def test_the_draws_of_a_quadratic_score_have_its_mean(simulation: Simulation) -> None:
    embedding = embed_linear(simulation.measured)
    random = np.random.default_rng(2)
    shares = random.random((4, len(simulation.cells))) ** 4
    shares /= shares.sum(axis=1, keepdims=True)
    drawn = Resampling(embedding, seed=0, draws=30_000).scores(shares)
    error = drawn.std(axis=1) / np.sqrt(drawn.shape[1])
    assert (np.abs(drawn.mean(axis=1) - embedding.score(shares)) < 4 * error).all()


def test_people_in_many_cells_move_them_together() -> None:
    """Each person adds an amount of their own to every cell: a mean over cells is no surer than a mean over people."""
    random = np.random.default_rng(3)
    num_cells, num_people = 40, 25
    of_person = random.normal(size=num_people)
    cell, person = (part.ravel() for part in np.mgrid[:num_cells, :num_people])
    samples = Samples(
        values=of_person[person][:, None], names=("linear",), cell=cell, identity=person + 1, num_cells=num_cells
    )
    embedding = replace(
        one_cell(of_person),
        coordinates=np.empty((num_cells, 0)),
        linear=samples.means[:, 0],
        variance=np.zeros(num_cells),
        num_identities=samples.num_identities,
        samples=samples,
    )
    drawn = Resampling(embedding, seed=0, draws=20_000).scores(np.full((1, num_cells), 1 / num_cells))[0]
    assert drawn.std() == pytest.approx(of_person.std(ddof=1) / np.sqrt(num_people), rel=0.03)


@pytest.mark.parametrize("identities_per_cell", [2, 4])
def test_intervals_of_flips_hold_the_truth_about_as_often_as_they_say(identities_per_cell: int) -> None:
    held, total = 0, 0
    for seed in range(40):
        world = simulate((5, 4, 3), seed=seed, identities_per_cell=identities_per_cell)
        space = Space(world.cells, world.identity, Budget(images=36), seed=0)
        objective = objective_of(world, space)
        exact = embed_linear(world.measured)
        phi_weight = np.sqrt(np.repeat(world.measured.factors, 6))
        goal = world.measurements.target_phi(TARGET, Weighing()).mean(axis=0)

        def true_score(shares: np.ndarray, world=world, weight=phi_weight, goal=goal) -> np.ndarray:
            return np.square(shares @ (world.cell_means * weight) - goal).sum(axis=1)

        assert exact.rank_error < 1e-6
        subset = space.subset(space.mask(world.planted))
        shares = space.expected_shares(space.mask(subset)[None])
        for effect in flip_effects(objective, subset, quantity="q", seed=seed, draws=200):
            if not effect.allowed:
                continue
            chosen = {name: set(values) for name, values in subset.values.items()}
            chosen[effect.attribute] ^= {effect.value}
            flipped = space.expected_shares(space.mask(Subset(chosen))[None])
            truth = (true_score(flipped) - true_score(shares))[0]
            held += effect.low <= truth <= effect.high
            total += 1
    assert total == 7 * 40  # the others do not fit the budget
    assert 0.88 < held / total < 0.98


def test_without_pairs_of_people_there_is_no_interval() -> None:
    world = simulate((4, 3, 2), seed=0, identities_per_cell=1)
    space = Space(world.cells, world.identity, Budget(images=24), seed=0)
    flips = flip_effects(objective_of(world, space), Subset({}), quantity="q", seed=0)
    marginal = marginal_effects(distance_of(world), world.cells, quantity="q", seed=0)
    for effect in (*flips, *marginal):
        assert effect.effect is not None
        assert (effect.low, effect.high) == (None, None)


def test_a_lone_person_of_a_cell_borrows_the_doubt_of_others() -> None:
    world = simulate((4, 3, 2), seed=0, identities_per_cell=6, noise=1.0)
    embedding = distance_of(world)
    samples = embedding.samples
    first = np.zeros(len(samples.cell), dtype=bool)
    first[np.unique(samples.cell, return_index=True)[1]] = True
    thin = samples.take(first | (samples.cell > 0))  # cell 0 has one person left
    assert thin.num_identities[0] == 1
    linear = (thin.means @ embedding.readout)[:, 0]
    embedding = replace(embedding, samples=thin, linear=linear, num_identities=thin.num_identities)
    drawn = np.std([Resampling(embedding, seed=seed, draws=300).scores(np.eye(24)[:1])[0] for seed in range(40)])
    pooled = np.sqrt((np.square(thin.deviations[0] @ embedding.readout)).sum() / (thin.num_identities - 1).sum())
    assert drawn == pytest.approx(pooled, rel=0.15)


def test_the_seed_decides_the_draws(simulation: Simulation, space: Space) -> None:
    objective = objective_of(simulation, space)
    subset = space.subset(random_masks(space, 1, seed=1)[0])
    first, again, other = (flip_effects(objective, subset, quantity="q", seed=seed, draws=50) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def grid(sizes: tuple[int, ...]) -> Cells:
    attributes = [
        Attribute(name="viewpoint", values=tuple(f"{360 // sizes[0] * at}deg" for at in range(sizes[0])), circular=True)
    ]
    attributes += [Attribute(name=f"a{at}", values=tuple(map(str, range(size)))) for at, size in enumerate(sizes[1:])]
    codes = np.array(list(product(*map(range, sizes))), dtype=np.int16)
    return Cells(
        attributes=tuple(attributes),
        codes=codes,
        of_row=np.arange(len(codes)),
        images=np.ones(len(codes), dtype=np.int64),
    )


def samples_of(cells: Cells, means: np.ndarray, k: int = 2) -> Samples:
    random = np.random.default_rng(0)
    values = np.repeat(means, k, axis=0) + 0.05 * random.normal(size=(len(cells) * k, means.shape[1]))
    names = tuple(f"q{at}" for at in range(means.shape[1]))
    return Samples(
        values=values,
        names=names,
        cell=np.repeat(np.arange(len(cells)), k),
        identity=np.tile(np.arange(1, k + 1), len(cells)),
        num_cells=len(cells),
    )


def interacting(cells: Cells) -> np.ndarray:
    angle = 2 * np.pi * cells.codes[:, 0] / len(cells.attributes[0].values)
    product = np.cos(angle) * np.where(cells.codes[:, 1] < 2, 1.0, -1.0)
    return np.stack([np.sin(angle) + product, 0.3 * cells.codes[:, 1] + 0 * angle], axis=1)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("log", [True, False])
def test_shap_values_sum_to_the_prediction(trusted: bool, log: bool) -> None:
    cells = grid((8, 4, 3))
    means = np.exp(interacting(cells)) if log else interacting(cells)
    surrogate = fit_reported(cells, samples_of(cells, means), replace(TRUSTED, trusted=trusted))
    values = surrogate.shap_values(cells.codes)
    assert values.shape == (len(cells), 4, 2)
    predicted = surrogate.predict_cells(cells.codes)
    expected = np.where(surrogate.positive, np.log(np.maximum(predicted, 1e-300)), predicted)
    np.testing.assert_allclose(values.sum(axis=1), expected, atol=1e-5)
    assert surrogate.positive.all() == log
    # The mean is the mean prediction over the cells that were fitted, all alike here.
    np.testing.assert_allclose(values[:, -1], np.broadcast_to(expected.mean(axis=0), (len(cells), 2)), atol=1e-3)


def test_shap_values_are_shapley_values_by_brute_force() -> None:
    """All coalitions of attributes, what is absent averaged over the cells; the trees' paths weigh almost so."""
    cells = grid((8, 4, 3))
    surrogate = fit_reported(cells, samples_of(cells, interacting(cells)), TRUSTED)
    table = surrogate.predict_cells(cells.codes).reshape(8, 4, 3, 2)
    num = 3

    def value(coalition: tuple[bool, ...]) -> np.ndarray:
        absent = tuple(axis for axis, present in enumerate(coalition) if not present)
        return np.broadcast_to(table.mean(axis=absent, keepdims=True), table.shape)

    expected = np.zeros((8, 4, 3, num, 2))
    for player in range(num):
        for coalition in product((False, True), repeat=num):
            if coalition[player]:
                continue
            size = sum(coalition)
            weight = factorial(size) * factorial(num - size - 1) / factorial(num)
            joined = tuple(present or at == player for at, present in enumerate(coalition))
            expected[:, :, :, player] += weight * (value(joined) - value(coalition))
    found = surrogate.shap_values(cells.codes)[:, :-1].reshape(8, 4, 3, num, 2)
    for column in range(2):
        error = np.abs(found[..., column] - expected[..., column]).mean() / np.abs(expected[..., column]).mean()
        assert error < 0.12


def test_the_ridges_shap_values_are_its_exact_additive_parts() -> None:
    cells = grid((8, 4, 3))
    surrogate = fit_reported(cells, samples_of(cells, interacting(cells)), replace(TRUSTED, trusted=False))
    found = surrogate.shap_values(cells.codes)
    table = surrogate.predict_cells(cells.codes).reshape(8, 4, 3, 2)
    mean = table.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found[:, 0].reshape(8, 4, 3, 2)[:, 0, 0], table.mean(axis=(1, 2)) - mean, atol=1e-9)
    np.testing.assert_allclose(found[:, 1].reshape(8, 4, 3, 2)[0, :, 0], table.mean(axis=(0, 2)) - mean, atol=1e-9)


def test_fitting_as_reported_predicts_what_the_validated_surrogate_does() -> None:
    cells = grid((8, 4, 3))
    samples = samples_of(cells, interacting(cells))
    validated = fit_surrogate(cells, samples, seed=0)
    again = fit_reported(cells, samples, validated.report)
    np.testing.assert_array_equal(validated.predict_cells(cells.codes), again.predict_cells(cells.codes))


def test_what_drives_the_distance_is_important(simulation: Simulation) -> None:
    """An attribute without any effect on the sketches gets almost no importance."""
    cells, identity = simulation.cells, simulation.identity
    measurements = simulation.measurements
    dulled = measurements.sketch.copy()
    grid_of = {tuple(codes): cell for cell, codes in enumerate(cells.codes.tolist())}
    for place, cell in enumerate(measurements.cell):
        codes = cells.codes[cell].tolist()
        twin = grid_of[codes[0], codes[1], 0]
        dulled[place] += simulation.cell_means[twin] - simulation.cell_means[cell]
    goal = measurements.target_sketch[TARGET]
    terms = np.stack(
        [
            np.square(dulled[:, block] - goal[:, block].mean(axis=0)).sum(axis=1)
            + np.square(goal[:, block] - goal[:, block].mean(axis=0)).sum(axis=1).mean()
            for block in measurements.blocks
        ],
        axis=1,
    )
    measurements = replace(measurements, sketch=dulled, terms={TARGET: terms.astype(np.float32)})
    found = distance_importances(
        Measured(measurements=measurements, cells=cells, identity=identity, target=TARGET, weighing=Weighing()), TRUSTED
    )
    assert [each.quantity for each in found] == ["D_total"] * 3 + ["style"] * 3 + ["content"] * 3
    of_total = {each.attribute: each.importance for each in found if each.quantity == "D_total"}
    assert of_total["attribute2"] < 0.2 * min(of_total["viewpoint"], of_total["attribute1"])
    assert all(each.relative for each in found)


def catalog_of(simulation: Simulation) -> Catalog:
    frame = pd.DataFrame(
        {
            "path": [f"{row}.jpg" for row in range(len(simulation.identity))],
            "identity": simulation.identity,
            "camera": 0,
            "part": "train",
        }
    )
    frame = pd.concat([frame, simulation.cells.frame.iloc[simulation.cells.of_row].reset_index(drop=True)], axis=1)
    return Catalog(
        frame=frame,
        root=None,
        title="simulated",
        layout="simulated",
        attributes=simulation.cells.attributes,
        rejected=pd.DataFrame({"path": [], "reason": []}),
    )


def test_spreads_are_the_percentiles_of_each_value(simulation: Simulation) -> None:
    catalog = catalog_of(simulation)
    spreads = distance_spreads(catalog, simulation.measured)
    total = simulation.measurements.total(TARGET, Weighing())
    assert len(spreads) == 5 + 4 + 3
    for spread in spreads:
        inside = (catalog.frame[spread.attribute].iloc[simulation.measurements.row] == spread.value).to_numpy()
        assert spread.num_images == inside.sum() > 0
        assert spread.percentiles[2] == pytest.approx(np.median(total[inside]))
        assert spread.percentiles == tuple(sorted(spread.percentiles))


def test_the_contour_is_the_mean_of_each_pair(simulation: Simulation) -> None:
    catalog = catalog_of(simulation)
    importances = [
        Importance(quantity=quantity, attribute=name, importance=weight, relative=True)
        for quantity, weights in (("D_total", (0.3, 0.1, 0.2)), ("style", (0.1, 0.9, 0.1)))
        for name, weight in zip(("viewpoint", "attribute1", "attribute2"), weights, strict=True)
    ]
    contour = distance_contour(catalog, simulation.measured, importances)
    assert (contour.row_attribute, contour.column_attribute) == ("viewpoint", "attribute2")
    assert (contour.rows, contour.columns) == tuple(simulation.cells.attributes[at].values for at in (0, 2))
    total = simulation.measurements.total(TARGET, Weighing())
    frame = catalog.frame.iloc[simulation.measurements.row]
    inside = ((frame["viewpoint"] == contour.rows[3]) & (frame["attribute2"] == contour.columns[1])).to_numpy()
    assert contour.means[3][1] == pytest.approx(total[inside].mean())
    assert distance_contour(catalog, simulation.measured, importances[:1]) is None
