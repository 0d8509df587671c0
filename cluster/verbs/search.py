"""The verb ``search``: by measurements, or by true trainings, which may also check what measurements found."""

from pathlib import Path
from typing import Any

from cluster import options
from cluster.executors.training_config import TrainingVerbConfig
from cluster.handover import hand_over
from cluster.inputs import images_key, only_target, read_measured, read_source
from cluster.outputs import begin
from cluster.progress import say
from cluster.recipes import TRAINING, with_recipe_of_training
from cluster.search_measured import BEST_TRAINED, SUBSET, TRUE_RANKING, MeasuredSearch, SearchVerbConfig, tell
from cluster.settings import override, validate
from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.measuring.freshness import require_photos_unchanged
from finegpr.storage import locked
from finegpr.weighing import Weighing
from search.analysis.true_ranking import CheckConfig
from search.journal import JOURNAL
from search.measured import Measured
from search.objectives import make_objective
from search.space import make_space


class TrainedSearchConfig(SearchVerbConfig):
    """The settings of the verb ``search``, and those of the true trainings that it makes, if any."""

    training: TrainingVerbConfig | None = None
    check: CheckConfig | None = None


def search(verb: options.Search) -> dict[str, Any]:
    """Search by measurements or by training, and train the best subsets where a labelled target is given."""
    config = search_config(override({}, verb.set))
    by_training = config.objective == TRAINING
    if config.training is not None and config.training.score != "mAP" and not by_training:
        raise ConfigError("the best subsets are ranked by true mAP; leave training.score out, or search by training")
    if verb.validation is None and (by_training or config.training is not None or config.check is not None):
        raise ConfigError("trainings are scored on a target, best on a labelled validation part; give --validation")
    if verb.validation is not None and config.training is None:
        raise ConfigError("--validation is for true trainings; say which by --set training.train.recipe=seconds")
    if by_training and (unused := sorted({"rounds", "scale", "check"} & config.model_fields_set)):
        raise ConfigError(f"{unused[0]} has no meaning for objective=training, which goes by no measurement")
    if config.training is not None and config.training.timeout_seconds is not None and verb.serial:
        raise ConfigError("training.timeout_seconds ends a worker process, and --serial has none; leave one out")
    given = config.training.model_fields_set if config.training is not None else set()
    if not by_training and (unused := sorted({"rungs", "gpu_seconds"} & given)):
        raise ConfigError(f"training.{unused[0]} is for objective=training; the best subsets are trained whole")
    source = read_source(verb.catalog)
    with locked(verb.output):
        return _search(verb, config, source)


def search_config(mapping: dict[str, Any]) -> TrainedSearchConfig:
    """The settings, with the training's recipe filled in. Raises ConfigError."""
    return validate(TrainedSearchConfig, with_recipe_of_training(mapping, "--set"), "--set")


def _search(verb: options.Search, config: TrainedSearchConfig, source: Catalog) -> dict[str, Any]:
    plain = SearchVerbConfig.model_validate(config.model_dump(exclude={"training", "check"}))
    if config.objective == TRAINING:
        # Not before: what trains takes seconds to import.
        from cluster.verbs.search_trained import by_training

        space = make_space(source, config.budget, seed=config.seed, attributes=config.attributes, config=config.space)
        assert config.training is not None
        assert verb.validation is not None
        validation = Catalog.read(verb.validation)
        asked = {
            **plain.model_dump(mode="json"),
            "training": config.training.objective_config.model_dump(mode="json"),
            "catalog": source.fingerprint,
            "images": images_key(source, verb.output / ".contents-source.parquet"),
            "validation": validation.fingerprint,
            "validation_images": images_key(validation, verb.output / ".contents-validation.parquet"),
        }
        begin(verb.output, asked, fresh=verb.fresh)
        found = by_training(verb, plain, config.training, source, space)
        return found | next_select(verb, config, {"subset": verb.output / SUBSET}, by_measurements=False)
    measurements, source = read_measured(verb.measurements, source)
    space = make_space(source, config.budget, seed=config.seed, attributes=config.attributes, config=config.space)
    target = only_target(measurements, verb.target)
    require_photos_unchanged(verb.measurements, target)
    measured = Measured(
        measurements=measurements,
        cells=space.cells,
        identity=source.identities,
        target=target,
        weighing=Weighing(scale=config.scale),
    )
    settings = {
        **plain.model_dump(mode="json"),
        "target": measured.target,
        "measurements": measured.fingerprint,
    }
    begin(verb.output, {**settings, "catalog": source.fingerprint}, fresh=verb.fresh)
    work = MeasuredSearch(config=plain, space=space, measured=measured, folder=verb.output, settings=settings)
    result, surrogate = work.run(config.rounds)
    words = tell(result, surrogate)
    say(f"{config.objective}: {result.score:.6g} -> {verb.output / SUBSET}")
    told = {
        "subset": str(verb.output / SUBSET),
        "score": result.score,
        "random_median": result.random_median,
        "choice": words,
    }
    if config.training is None:
        return told | next_select(verb, config, {"subset": verb.output / SUBSET}, by_measurements=True)
    from cluster.verbs.search_trained import check

    if config.rounds is not None:  # whose last round may have seen fewer photos
        surrogate = make_objective(config.objective, space, measured)
    checked = check(verb, plain, config.training, config.check or CheckConfig(), source, result, surrogate)
    files = {"subset": verb.output / BEST_TRAINED, "true ranking": verb.output / TRUE_RANKING}
    return told | checked | next_select(verb, config, files, by_measurements=True)


def next_select(
    verb: options.Search, config: SearchVerbConfig, files: dict[str, Path], *, by_measurements: bool
) -> dict[str, Any]:
    """Hand over what was found; the subset among ``files`` is the one to draw from."""
    budget = config.budget
    return hand_over(
        {**files, "journal": verb.output / JOURNAL},
        *("aost", "select", verb.catalog, "--subset", files["subset"], "--images", budget.images),
        *(() if budget.identities is None else ("--identities", budget.identities)),
        *(("--measurements", verb.measurements) if by_measurements else ()),
        *("--output", "manifest.parquet"),
    )
