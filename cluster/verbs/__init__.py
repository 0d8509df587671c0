"""The verbs of ``aost``: the options of each, and the function that does it, which is imported when the verb runs."""

from collections.abc import Mapping

from cluster import options
from cluster.options import Verb
from cluster.verbs.weights import Weights

VERBS: Mapping[type[Verb], str] = {
    options.Demo: "cluster.verbs.run:demo",
    options.Run: "cluster.verbs.run:run",
    options.Check: "cluster.verbs.check:check",
    Weights: "cluster.verbs.weights:weights",
    options.Render: "cluster.verbs.world:render",
    options.Index: "cluster.verbs.world:index",
    options.Measure: "cluster.verbs.measure:measure",
    options.Search: "cluster.verbs.search:search",
    options.Sweep: "cluster.verbs.sweep:sweep",
    options.Select: "cluster.verbs.select:select",
    options.Train: "cluster.verbs.train:train",
    options.Evaluate: "cluster.verbs.train:evaluate",
    options.Compare: "cluster.verbs.report:compare",
    options.Diff: "cluster.verbs.report:diff",
    options.Export: "cluster.verbs.report:export",
    options.Report: "cluster.verbs.report:report",
}
# What --set changes: a model, or several by name (recipes, layouts); of the main job, the manual of a config.
SETTINGS: Mapping[type[Verb], str] = {
    options.Demo: "everything.yaml",
    options.Run: "everything.yaml",
    options.Check: "everything.yaml",
    options.Render: "cluster.run.config:WorldConfig",
    options.Index: "finegpr.layouts:LAYOUTS",
    options.Measure: "cluster.run.config:MeasureVerbConfig",
    options.Search: "cluster.verbs.search:TrainedSearchConfig",
    options.Sweep: "search.sweep:SweepConfig",
    options.Train: "finegpr.reid.recipes:RECIPES",
}
