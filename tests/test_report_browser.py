"""The report in a real browser: draws without an error, asks the network for nothing, fits a phone, goes dark."""

import base64
import fcntl
import json
import os
import runpy
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from finegpr.storage import write_table
from search.report.page import write_report
from search.report.sweep_page import Cost, write_sweep_report
from search.simulation import TARGET, simulate
from search.sweep import Grid, Ground, SweepConfig, Sweeper, read_sweep, to_table

report_data = runpy.run_path(str(Path(__file__).with_name("report_example.py")))["report_data"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
CANARY = "<script>document.title='pwned'</script><img src=x onerror=alert(1)>\"'&{{7*7}}"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="headless Chromium is not installed (apt install chromium)"),
]


class Browser:
    """Headless Chromium over its debugging pipe: NUL-terminated JSON on descriptors 3 (to it) and 4 (from it)."""

    def __init__(self, profile):
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        # The shell assigns 3 and 4, because Popen cannot renumber what it passes on; from 10 up nothing collides.
        there_in, there_out = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, answers))
        redirect = f'exec "$@" 3<&{there_in} 4>&{there_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(there_in, there_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs, answers, there_in, there_out):
            os.close(end)
        self._pending, self._number, self.events = b"", 0, []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self._pending:
            piece = os.read(self._in, 1 << 20)
            assert piece, "Chromium ended"
            self._pending += piece
        line, self._pending = self._pending.split(b"\0", 1)
        return json.loads(line)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def open(self, path, *, width, dark=False):
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.documentElement.dataset.ready === 'yes'")

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"{condition} after {seconds} s; errors: {self.errors()}"
            time.sleep(0.05)

    def errors(self):
        """Uncaught exceptions, console errors and refusals of the content policy, as text."""
        bad = [event for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        bad += [
            event
            for event in self.events
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error"
        ]
        bad += [
            event
            for event in self.events
            if event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning")
        ]
        return [json.dumps(event["params"])[:600] for event in bad]

    def requests(self):
        """Addresses asked for, other than what lies inside the page."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def screenshot(self, path):
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(report_data(), path)
    return path


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory):
    """Of 48 searches over simulated cells."""
    simulated = simulate((5, 4, 3), seed=0)
    ground = Ground(
        cells=simulated.cells, groups=None, identity=simulated.identity, measurements=simulated.measurements
    )
    axes = {"images": (60, 90, 120), "identities": (None, 9), "bounds": ((0.15, 0.5),), "seeds": (0, 1)}
    objectives, optimizers = ("mean_distance", "mmd_rbf"), ("numpy_swarm", "random")
    axes |= {
        "objectives": objectives,
        "optimizers": optimizers,
        "layer_weights": (simulated.measurements.of.even_weights,),
    }
    config = SweepConfig(targets=(TARGET,), evaluations=30, **axes)
    sweeper, folder = Sweeper(config, ground), tmp_path_factory.mktemp("sweep")
    write_table(folder / "sweep.parquet", to_table([sweeper.row(*each) for each in enumerate(Grid(config))]))
    frame = read_sweep(folder / "sweep.parquet")
    cost = Cost(seconds=75.0, num_searches=len(frame), num_of_grid=len(frame), chunk=32)
    write_sweep_report(frame, folder / "sweep.html", config=config, ground=ground, cost=cost)
    return folder / "sweep.html"


FIGURES_SHOWN = "[...document.querySelectorAll('.plot')].filter((e) => e.closest('details:not([open])') === null)"


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, False), (400, True)])
def test_report_draws_everything_offline_and_fits_the_width(browser, report, tmp_path, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.errors() == []
    assert browser.requests() == [report.as_uri()]
    drawn = browser.evaluate(f"{FIGURES_SHOWN}.filter((e) => e.querySelector('svg.main-svg')).length")
    assert drawn == browser.evaluate(f"{FIGURES_SHOWN}.length") > 8
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{wide}.map((e) => e.tagName).join()") == ""
    assert browser.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 21, 24)" if dark else "rgb(245, 246, 247)")
    shot = tmp_path / "report.png"
    browser.screenshot(shot)
    assert shot.stat().st_size > 20_000


OVERLAPS = """
[...document.querySelectorAll('.plot')].flatMap((plot) => ['xtick', 'ytick'].flatMap((kind) => {
  const texts = [...plot.querySelectorAll(`.${kind} text`)];
  const turned = texts.some((text) => /rotate\\((?!0)/.test(text.getAttribute('transform') ?? ''));
  const boxes = turned ? [] : texts.map((text) => text.getBoundingClientRect());
  const over = (one, two) => Math.min(one.right, two.right) - Math.max(one.left, two.left) > 3
    && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 4;
  const bad = boxes.filter((box, at) => boxes.slice(at + 1).some((other) => over(box, other))).length;
  return bad ? [`${plot.dataset.figure} ${kind}: ${bad}`] : [];
})).join('; ')
"""
EMPTY = """
[...document.querySelectorAll('.plot')].filter((plot) => !plot.querySelector('.trace, .hm, .point, .points'))
  .map((plot) => plot.dataset.figure).join('; ')
"""


@pytest.mark.parametrize("width", [1200, 400])
def test_no_figure_is_empty_and_no_labels_overlap(browser, report, width):
    browser.open(report, width=width)
    browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.wait("[...document.querySelectorAll('.plot')].every((e) => e.dataset.drawn === 'yes')")
    keys = browser.evaluate("[...document.querySelectorAll('.plot')].map((e) => e.dataset.figure)")
    assert {"importance", "contour", "shifts", "rounds", "best", "distribution", "slices"} <= set(keys)
    assert browser.evaluate(EMPTY) == ""
    assert browser.evaluate(OVERLAPS) == ""
    rows = "document.querySelectorAll('[data-figure=\"distances/viewpoint\"] .ytick').length"
    assert browser.evaluate(rows) == 36, "a label for every row"
    wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{wide}.map((e) => e.tagName).join()") == ""
    browser.evaluate("document.querySelectorAll('.ytick text').forEach((e) => { e.style.fontSize = '60px'; })")
    assert "distances/viewpoint ytick" in browser.evaluate(OVERLAPS), "overlaps are seen"


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_sweep_page_draws_everything_offline_and_fits_the_width(browser, sweep_page, tmp_path, width, dark):
    browser.open(sweep_page, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.wait("[...document.querySelectorAll('.plot')].every((e) => e.dataset.drawn === 'yes')")
    assert browser.errors() == []
    assert browser.requests() == [sweep_page.as_uri()]
    keys = browser.evaluate("[...document.querySelectorAll('.plot')].map((e) => e.dataset.figure)")
    assert {key.split("/")[0] for key in keys} == {"gain", "stable", "front"}
    assert browser.evaluate(EMPTY) == ""
    assert browser.evaluate(OVERLAPS) == ""
    wide = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.evaluate(f"{wide}.map((e) => e.tagName).join()") == ""
    browser.screenshot(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 20_000


def test_print_is_dark_on_light_without_what_only_a_screen_can_do(browser, report):
    browser.open(report, width=800, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_closed_parts_draw_when_opened_and_the_figures_follow_a_change_of_scheme(browser, report):
    browser.open(report, width=1200)
    browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.wait("[...document.querySelectorAll('.plot')].every((e) => e.dataset.drawn === 'yes')")
    bar = "getComputedStyle(document.querySelector('.barlayer .point:last-child path')).fill"
    light = browser.evaluate(bar)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait(f"{bar} !== '{light}'")
    assert browser.errors() == []


def test_markup_in_names_is_shown_as_text(browser, tmp_path):
    path = tmp_path / "canary.html"
    write_report(report_data(warning=CANARY), path)
    browser.open(path, width=1200)
    browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.wait("[...document.querySelectorAll('.plot')].every((e) => e.dataset.drawn === 'yes')")
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.evaluate("document.querySelectorAll('script').length") == 3
    assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert browser.evaluate("document.title").startswith("8.2 % of MiniGPR<script>")
    ticks = "[...document.querySelectorAll('svg text')].map((e) => e.textContent).join(' ')"
    assert "<script>document.title='pwned'</script>" in browser.evaluate(ticks)


def test_a_broken_or_curious_page_is_noticed(browser, tmp_path):
    path = tmp_path / "broken.html"
    path.write_text(
        "<html data-ready=yes><script>setTimeout(() => { throw Error('oops'); })</script>"
        "<img src='http://127.0.0.1:9/beacon.png'><p style='width: 900px'>wide</p>"
    )
    browser.open(path, width=400)
    browser.wait("document.readyState === 'complete'")
    assert any("oops" in error for error in browser.errors())
    assert "http://127.0.0.1:9/beacon.png" in browser.requests()
