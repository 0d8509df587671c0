"""The report's records, words, figures and page, without a browser."""

import base64
import dataclasses
import io
import json
import os
import re
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from finegpr.errors import InputError, StateError, WriteError
from search.analysis.compare import summarise
from search.analysis.records import AttributeShares
from search.analysis.words import duration, number, odds, percent
from search.report import page as page_module
from search.report import text as report_text
from search.report.data import ReportData, Thumbnail
from search.report.figures import FIGURES, SECTIONS, Entry, base
from search.report.figures import arms as figures
from search.report.figures import explain as explain_figures
from search.report.figures import search as search_figures
from search.report.figures.base import Figure
from search.report.figures.png import write_arms_png, write_distances_png, write_importance_png
from search.report.figures.shares import shares
from search.report.page import render, write_report
from search.report.text import headline, result_rows, tiles, verdict, warnings

report_data = runpy.run_path(str(Path(__file__).parents[1] / "report_example.py"))["report_data"]
EMPTY = {
    "importances": (),
    "spreads": (),
    "contour": None,
    "checks": (),
    "shifts": (),
    "rounds": (),
    "rounds_ended": None,
    "best_subsets": (),
    "slices": (),
}
CANARY = "<script>document.title='pwned'</script>|&\"'"


@pytest.fixture(scope="module")
def data():
    return report_data()


def with_choice(data, **changes):
    main, *others = data.choices
    return dataclasses.replace(data, choices=(dataclasses.replace(main, **changes), *others))


def test_json_there_and_back_is_the_same_and_draws_the_same_page(data):
    again = ReportData.from_json(data.to_json())
    assert again == data
    assert render(again) == render(data)


def test_report_data_of_before_with_fields_that_are_no_more_still_load(data):
    written = json.loads(data.to_json())
    for choice in written["choices"]:
        choice["known_best"] = 0.0195
    for weights in written["provenance"]["weights"]:
        weights["sha256"] = "5d" * 32
    assert ReportData.from_json(json.dumps(written)) == data


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda loaded: loaded.pop("budget"), "budget"),
        (lambda loaded: loaded["choices"][0].pop("score"), "choices.0.score"),
        (lambda loaded: loaded["results"][0].update(values="3"), "results.0.values"),
        (lambda loaded: loaded.update(main="nothing"), "nothing"),
    ],
)
def test_damaged_json_is_named(data, damage, named):
    loaded = json.loads(data.to_json())
    damage(loaded)
    with pytest.raises(StateError, match=named):
        ReportData.from_json(json.dumps(loaded))


def test_not_a_number_is_refused(data):
    with pytest.raises(ValueError, match="JSON compliant"):
        with_choice(data, score=float("nan")).to_json()


def test_page_holds_everything_and_asks_for_nothing(data):
    page = render(data)
    outside_plotly = re.sub(r"<script nonce=.*?</script>", "", page, flags=re.DOTALL)
    assert "Content-Security-Policy" in outside_plotly
    assert "default-src 'none'" in outside_plotly
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", outside_plotly)
    assert page.count("plotly.js v") == 1
    assert outside_plotly.count("data:image/jpeg;base64,") == 30
    for words in (headline(data), "Responsible use", "0007/0007_c03_w01_l02_p01.jpg", "aost run demo.yaml"):
        assert words in outside_plotly
    drawn = set(re.findall(r'data-figure="([^"]+)"', page))
    specs = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])
    assert drawn == set(specs), "every figure has a place and every place a figure"


def test_names_are_escaped_everywhere():
    page = render(report_data(warning=CANARY))
    assert CANARY not in page
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page
    assert len(re.findall(r"<script[ >]", page)) == 3


def test_figures_are_valid_plotly(data):
    page = render(data)
    specs = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])
    for spec in specs.values():
        go.Figure(spec)  # raises on an unknown property or a wrong value
    axes = [spec["layout"]["xaxis"]["title"]["text"] for key, spec in specs.items() if key.startswith("arms/")]
    assert axes == ["mAP (%)", "rank-1 (%)"]


def test_a_figure_with_a_caption_is_drawn_at_the_end_of_its_section_whatever_else_is_there(data, monkeypatch):
    def draw(_, section):
        yield Figure(key=f"new/{section}", title=f"new in {section}", height=100, spec={"data": [], "layout": {}})

    entries = [
        Entry(section=section, draw=partial(draw, section=section), heading=f"H {section}", caption=f"C & {section}")
        for section in SECTIONS
    ]
    nothing = Entry(section="cost", draw=lambda _: (), heading="Not there", caption="Nothing to show.")
    monkeypatch.setattr(page_module, "FIGURES", (*FIGURES, *entries, nothing))
    bare = dataclasses.replace(report_data(seeds=()), samples=(), surrogate=(), style_shares=(), effects=(), **EMPTY)
    for page in (render(data), render(bare)):
        sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))
        assert tuple(sections) == SECTIONS
        for section, text in sections.items():
            card = rf'<h3>H {section}</h3>.*data-figure="new/{section}".*C &amp; {section}</p>\s*</div>\s*$'
            assert re.search(card, text, re.DOTALL)
        assert "Not there" not in page
        drawn = set(re.findall(r'data-figure="([^"]+)"', page))
        assert drawn == set(json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1]))


def test_every_figure_has_a_key_of_its_own_and_none_where_there_is_nothing(data):
    keys = [figure.key for entry in FIGURES for figure in entry.draw(data)]
    assert len(set(keys)) == len(keys)
    bare = dataclasses.replace(report_data(seeds=()), effects=(), front=(), **EMPTY)
    bare = with_choice(bare, history=(), random_history=())
    bare = dataclasses.replace(bare, choices=bare.choices[:1])
    names = {figure.key.split("/")[0] for entry in FIGURES for figure in entry.draw(bare)}
    assert names == {"shares"}


def test_a_hundred_thousand_trials_stay_small():
    data = report_data(num_trials=100_000)
    page = render(data)
    assert len(page.encode()) < 8_000_000
    history = figures.history(data.main_choice, key="history")
    best = base.best_so_far(data.main_choice.history, higher_is_better=False)
    dots, steps = history.spec["data"][0], history.spec["data"][1]
    assert len(dots["x"]) <= base.MAX_POINTS
    assert (steps["x"][-1], steps["y"][-1]) == (100_000, best[-1])


def test_best_so_far_is_the_running_extreme_without_failures():
    scores = np.random.default_rng(0).random(50).tolist()
    assert base.best_so_far(scores, higher_is_better=False) == np.minimum.accumulate(scores).tolist()
    assert base.best_so_far(scores, higher_is_better=True) == np.maximum.accumulate(scores).tolist()
    assert base.best_so_far([None, 2.0, None, 1.0, 3.0], higher_is_better=False) == [None, 2.0, 2.0, 1.0, 1.0]


def test_thinning_keeps_first_and_last():
    assert base.thinned(0) == []
    assert base.thinned(3, 10) == [0, 1, 2]
    kept = base.thinned(100_001, 11)
    assert kept == list(range(0, 100_001, 10_000))


def test_verdict_says_no_more_than_is_known(data):
    assert "trains a better model" in verdict(data)
    assert "95 % interval" in verdict(data)
    one = report_data(seeds=(0,))
    assert verdict(one).startswith("No difference from random is shown: +")
    assert "one seed, so without an interval" in verdict(one)
    assert headline(one).endswith("no difference from random shown, on one seed")
    none = report_data(seeds=())
    assert "not tested" in verdict(none)
    assert next(tile for tile in tiles(none) if tile.question == "How sure").answer == "Not tested"
    unclear = dataclasses.replace(data, results=summarise_shuffled())
    assert "No difference from random is shown" in verdict(unclear)
    assert headline(unclear).endswith("no difference from random shown")
    assert not any("better model" in lead for lead in (report_text.lead(unclear), report_text.lead(one)))
    assert not any(tile.clear for tile in tiles(unclear))


@pytest.mark.parametrize(
    ("everything", "said", "in_headline"),
    [
        ((0.40, 0.41, 0.42), "everything trains a better model than the choice: +8.0 mAP points (95 % interval", True),
        ((0.40, 0.30, 0.40), "everything scored above the choice, no difference shown: +3.7 mAP points", False),
        ((0.40,), "no difference shown: +8.0 mAP points (one seed, so without an interval)", False),
        ((0.30, 0.31, 0.33), None, False),
    ],
)
def test_where_more_images_are_better_the_top_says_so_and_what_they_cost(data, everything, said, in_headline):
    choice = (0.32, 0.33, 0.34)
    rows = [("mmd_rbf", seed, value) for seed, value in enumerate(choice)]
    rows += [("random", seed, value - 0.05 - 0.001 * seed) for seed, value in enumerate(choice)]
    rows += [("everything", seed, value) for seed, value in enumerate(everything)]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "mAP"]).assign(target="MiniMarket")
    told = dataclasses.replace(data, results=summarise(frame, metrics=["mAP"]))
    lead = report_text.lead(told)
    assert headline(told).endswith("; everything is better") == in_headline
    if said is None:
        assert "everything" not in lead
    else:
        assert said in lead
        cost = (
            "12,348 images of 150 identities instead of 900 images of 80 identities, and 1 min 1 s a training instead"
        )
        assert cost in lead
        assert lead in render(told)


def test_the_page_says_what_each_arm_trains_on_and_what_to_take_along(data):
    page = render(data)
    assert "random, everything" not in page
    assert "mmd_rbf, random, mean_distance and mmd_linear train on 900 images; everything on 12,348." in page
    assert "Each trains for 300 steps" in page
    assert '<td class="n" data-label="identities">150</td>' in page
    assert "Of 3 searches this is the one by mmd_rbf: no check by true training" in page
    for path in (*data.files.values(), data.next_command):
        assert f"<code>{path}</code>" in page
    alike = dataclasses.replace(data, arms=tuple(each for each in data.arms if each.arm != "everything"))
    assert "Every arm trains on 900 images." in render(alike)
    whole = dataclasses.replace(
        data, arms=tuple(dataclasses.replace(each, num_images=7, words="all of 7") for each in data.arms)
    )
    assert "Arms train on as many images as stands beside them. Each trains for 300 steps" in render(whole)
    assert "<span>mmd_rbf<small> all of 7</small></span>" in render(whole)
    assert next(tile for tile in tiles(whole) if tile.question == "What was chosen").detail.endswith("7 are trained on")


def test_what_ran_side_by_side_is_counted_once_by_the_clock(data):
    assert (data.seconds, data.wall_seconds) == (pytest.approx(563.5), pytest.approx(357.5))
    assert "took 5 min 58 s by the clock, with 9 min 24 s of work" in report_text.lead(data)
    cost = next(tile for tile in tiles(data) if tile.question == "What it cost")
    assert cost.answer == "5 min 58 s"
    assert cost.detail == "by the clock; 58 % of it train, 22,500 images at 109 a second; 9 min 24 s of work"
    in_turn = dataclasses.replace(data, stages=tuple(dataclasses.replace(e, wall_seconds=None) for e in data.stages))
    assert report_text.lead(in_turn).endswith("took 9 min 24 s by the clock.")


def summarise_shuffled():
    rows = [
        ("mmd_rbf", 0.30),
        ("mmd_rbf", 0.20),
        ("mmd_rbf", 0.25),
        ("random", 0.21),
        ("random", 0.29),
        ("random", 0.22),
    ]
    frame = pd.DataFrame(rows, columns=["arm", "mAP"]).assign(target="MiniMarket", seed=[0, 1, 2, 0, 1, 2])
    return summarise(frame, metrics=["mAP"])


def test_headline_names_what_was_chosen(data):
    assert headline(data).startswith("8.2 % of MiniGPR for MiniMarket: +")
    lead = report_text.lead(data)
    assert "viewpoint 50°–110°, 250°–310°; weather overcast, foggy, neutral; illumination noon, afternoon" in lead
    assert "9 min 24 s" in lead


def test_warnings_name_each_weakness(data):
    text = "\n".join(warnings(data))
    for words in (
        "Untrained weights",
        "does not beat a ridge",
        "D_total on held-out value pairs",
        "5 arms",
        "not FineGPR",
        "People: Not one chosen image shows hair short.",
    ):
        assert words in text
    assert "no better than a random" not in text
    assert "Only 1 seed" in "\n".join(warnings(report_data(seeds=(0,))))
    assert "search failed" in warnings(with_choice(data, score=0.07))[0]
    clean = dataclasses.replace(
        with_choice(data, num_failed=0),
        surrogate=(),
        rank_agreements=(),
        checks=(),
        choices=tuple(dataclasses.replace(choice, num_failed=0) for choice in data.choices),
        source=dataclasses.replace(data.source, rendered=False),
        provenance=dataclasses.replace(data.provenance, weights=()),
    )
    assert warnings(clean) == ()


def attribute(chosen, *, circular=True):
    values = ("0deg", "90deg", "180deg", "270deg")
    return AttributeShares(
        name="viewpoint",
        values=values,
        level="image",
        circular=circular,
        chosen=chosen,
        source=(0.25,) * 4,
        manifest=(0.25,) * 4,
        target=None,
        target_kind="unknown",
    )


@pytest.mark.parametrize("circular", [True, False])
def test_an_estimate_is_drawn_with_its_interval_and_other_shares_without(circular):
    bare = attribute((True,) * 4, circular=circular)
    without = dataclasses.replace(bare, target=(0.1, 0.2, 0.3, 0.4), target_kind="estimate")
    ends = ((0.05, 0.2), (0.1, 0.25), (0.3, 0.3), (0.35, 0.5))
    drawn = [
        shares(each, key="shares/viewpoint", target="t").spec["data"]
        for each in (without, dataclasses.replace(without, target_interval=ends))
    ]
    go.Figure(data=drawn[1])  # raises for what Plotly does not know
    if circular:
        assert "interval" not in [trace["name"] for trace in drawn[0]]
        line = next(trace for trace in drawn[1] if trace["name"] == "interval")
        assert line["theta"] == [0, 0, None, 90, 90, None, 180, 180, None, 270, 270, None]
        assert line["r"] == pytest.approx([5, 20, None, 10, 25, None, 30, 30, None, 35, 50, None])
    else:
        assert "error_y" not in drawn[0][-1]
        bars = drawn[1][-1]["error_y"]
        assert bars["array"] == pytest.approx([10, 5, 0, 10])
        assert bars["arrayminus"] == pytest.approx([5, 10, 0, 5])


def test_angles_join_to_ranges_over_the_seam():
    joined = report_text.chips(attribute((True, False, False, True)))
    assert sorted(joined) == [("270°–0°", True), ("90°–180°", False)]
    assert report_text.chips(attribute((False, True, False, True))) == [
        ("0°", False),
        ("90°", True),
        ("180°", False),
        ("270°", True),
    ]
    assert report_text.chips(attribute((True,) * 4)) == [("all 4 angles", True)]
    assert report_text.chips(attribute((True, False, False, True), circular=False))[0] == ("0deg", True)


def test_numbers_read_well():
    assert [duration(each) for each in (0.04, 59.6, 3_599.7, 7_810)] == [
        "0.0 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 10 min",
    ]
    assert [percent(each) for each in (0, 0.0823, 0.004, 5e-6, 1)] == [
        "0 %",
        "8.2 %",
        "0.40 %",
        "5e−04 %",
        "100 %",
    ]
    assert [number(each) for each in (None, 0.02049, 12_345.6, -0.5)] == ["–", "0.0205", "12,346", "−0.5"]
    assert odds(0.0) == "< 0.1 %"


def test_table_has_a_row_per_arm_and_a_cell_per_metric(data):
    rows = result_rows(data)
    assert [row.arm for row in rows] == ["mmd_rbf", "random", "everything", "mean_distance", "mmd_linear"]
    assert {tuple(cell.metric for cell in row.cells) for row in rows} == {("mAP", "rank-1")}
    assert re.fullmatch(r"\+\d\.\d \[\+\d\.\d, \+\d\.\d\]", rows[0].cells[0].difference)
    assert rows[1].cells[0].difference == "–"


def test_failed_trainings_are_counted_in_the_table(data):
    broken = dataclasses.replace(data, results=tuple(dataclasses.replace(each, num_failed=1) for each in data.results))
    assert (result_rows(broken)[0].num_seeds, result_rows(broken)[0].num_failed) == (3, 1)
    assert "1 failed" in render(broken)


def test_a_run_without_training_or_truth_still_reports():
    bare = dataclasses.replace(
        report_data(seeds=()),
        samples=(),
        surrogate=(),
        style_shares=(),
        effects=(),
        rank_agreements=(),
        stages=(),
        **EMPTY,
    )
    bare = with_choice(bare, agreements=(), history=(), random_history=(), random_score=None)
    page = render(bare)
    assert "No training was compared" in page
    for section in ("why", "health", "people", "images", "surrogate"):
        assert f'id="{section}"' in render(report_data())
        assert f'id="{section}"' not in page


def test_thumbnail_is_a_small_jpeg():
    image = np.full((480, 200, 3), 90, dtype=np.uint8)
    thumbnail = Thumbnail.from_array(image, caption="a")
    with Image.open(io.BytesIO(base64.b64decode(thumbnail.jpeg))) as read:
        assert (read.format, read.size) == ("JPEG", (53, 128))


def test_a_blurred_thumbnail_holds_nothing_finer_than_its_rows():
    random = np.random.default_rng(0)
    image = np.kron(random.integers(0, 2, (96, 48, 1)) * 255, np.ones((2, 2, 3))).astype(np.uint8)
    image[96:] //= 2  # what is coarse stays
    spread = {}
    for blurred in (False, True):
        thumbnail = Thumbnail.from_array(image, caption="a", blurred=blurred)
        with Image.open(io.BytesIO(base64.b64decode(thumbnail.jpeg))) as read:
            assert read.size == (64, 128)
            spread[blurred] = np.asarray(read, dtype=float)
    assert np.abs(np.diff(spread[True], axis=0)).mean() < 0.05 * np.abs(np.diff(spread[False], axis=0)).mean()
    assert spread[True][:60].mean() > 1.5 * spread[True][68:].mean()


def test_a_page_with_photos_is_its_owners(data, tmp_path):
    rows = {kind: tuple(dataclasses.replace(row, kind=kind) for row in data.samples) for kind in ("shown", "rendered")}
    for samples, mode in ((rows["shown"], 0o600), (rows["rendered"], 0o644), ((), 0o644)):
        path = tmp_path / "report.html"
        before = os.umask(0o022)
        try:
            write_report(dataclasses.replace(data, samples=samples), path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == mode


def test_unwritable_place_is_one_line(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match=r"report\.html"):
        write_report(data, tmp_path / "file" / "report.html")


def test_png_shows_arms_and_search(data, tmp_path):
    for each, width in ((data, 1600), (report_data(seeds=()), 880)):
        path = tmp_path / "figure.png"
        write_arms_png(each, path)
        with Image.open(path) as read:
            assert read.format == "PNG"
            assert read.width == width
            assert len(read.convert("RGB").getcolors(1 << 20)) > 50
    with pytest.raises(InputError, match="neither trained arms nor a search"):
        write_arms_png(with_choice(report_data(seeds=()), history=()), path)


def test_report_data_from_before_the_explanation_are_still_read(data):
    loaded = json.loads(data.to_json())
    for name in EMPTY:
        del loaded[name]
    assert ReportData.from_json(json.dumps(loaded)) == dataclasses.replace(data, **EMPTY)


def test_effects_are_the_largest_in_order_and_what_cannot_change_is_named(data):
    found = [each for each in data.effects if each.quantity == "mmd_rbf"]
    figure = explain_figures.effects(found, key="effects", attributes=data.main_choice.attributes)
    bar = figure.spec["data"][0]
    known = sorted((each.effect for each in found if each.effect is not None), key=abs)
    assert bar["x"] == sorted(known[-explain_figures.MAX_EFFECTS :])
    assert [round(each, 9) for each in bar["error_x"]["array"]] == [0.003] * len(bar["x"])
    assert "hair short" not in bar["y"]
    assert "The last value of its attribute, which cannot go: hair short." in render(data)
    hatched = [name for name, shape in zip(bar["y"], bar["marker"]["pattern"]["shape"], strict=True) if shape]
    assert hatched == ["weather foggy"]
    assert "Hatched: the budget" in render(data)
    alone = [each for each in found if each.effect is None]
    assert explain_figures.effects(alone, key="effects", attributes=()) is None


def test_the_distribution_of_scores_is_the_empirical_one(data):
    choice = data.main_choice
    search, random = next(search_figures.distribution(data)).spec["data"]
    scores = np.sort([score for score in choice.history if score is not None])
    assert search["x"] == scores.tolist()
    np.testing.assert_allclose(search["y"], 100 * np.searchsorted(scores, scores, side="right") / len(scores))
    assert len(random["x"]) == len(choice.random_history)


def test_boxes_are_drawn_from_percentiles_and_coloured_by_the_choice(data):
    spreads = [each for each in data.spreads if each.attribute == "weather"]
    figure = explain_figures.distances(
        spreads, key="distances", attributes=data.main_choice.attributes, target="MiniMarket"
    )
    chosen, rest = figure.spec["data"]
    assert chosen["y"] == ["overcast", "foggy", "neutral"]
    assert len(rest["y"]) == 4
    foggy = next(each for each in spreads if each.value == "foggy")
    assert tuple(chosen[part][1] for part in ("lowerfence", "q1", "median", "q3", "upperfence")) == foggy.percentiles


def test_the_best_subsets_fill_a_square_where_a_value_is_in(data):
    figure = next(search_figures.best(data))
    heatmap = figure.spec["data"][0]
    row = next(place for place, name in enumerate(heatmap["y"]) if name.startswith("weather foggy"))
    assert heatmap["z"][row] == [float("foggy" in each.values["weather"]) for each in data.best_subsets]
    assert heatmap["y"][row].endswith("\N{BLACK LEFT-POINTING SMALL TRIANGLE}")


def test_importances_come_largest_first_as_percentages(data):
    figure = next(explain_figures.importance(data))
    bars, style, content = figure.spec["data"]
    assert bars["x"] == sorted(bars["x"])
    assert figure.spec["layout"]["yaxis"]["categoryarray"] == bars["y"]
    of_total = {each.attribute: 100 * each.importance for each in data.importances if each.quantity == "D_total"}
    assert dict(zip(bars["y"], bars["x"], strict=True)) == of_total
    assert (style["name"], content["name"]) == ("style", "content")


def test_pngs_of_importances_and_distances(data, tmp_path):
    bare = dataclasses.replace(data, importances=(), spreads=())
    for write, name in ((write_importance_png, "importances"), (write_distances_png, "distances")):
        path = tmp_path / f"{name}.png"
        write(data, path)
        with Image.open(path) as read:
            assert read.format == "PNG"
            assert len(read.convert("RGB").getcolors(1 << 20)) > 50
        with pytest.raises(InputError, match=name):
            write(bare, path)
