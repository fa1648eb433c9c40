"""The page: everything of the report is on it, it needs nothing from elsewhere, and it fits a phone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.tvmcompress.cli.running import run
from tests.tvmcompress.report.pixels import read_grey, smaller, write_grey
from tvmcompress.evaluation.accuracy import Evaluation
from tvmcompress.evaluation.noise import LayerNoise
from tvmcompress.measuring.record import BuildRecord, RuntimeResult
from tvmcompress.recipe.recipe import Recipe
from tvmcompress.report.html import html_page
from tvmcompress.report.html.arena import fullest_step
from tvmcompress.report.html.charts import Point, front, scatter
from tvmcompress.report.html.svg import Axis, round_steps
from tvmcompress.report.layers import LayerFigures
from tvmcompress.report.node_data import node_data
from tvmcompress.report.record import Host, ModelRecord, RemarkRecord, Report, StepRecord
from tvmcompress.report.surgery import PrunedGroup, SurgeryRecord
from tvmcompress.sensitivity.channels import GroupSensitivity, Sensitivity, SensitivityPoint
from tvmcompress.targets.measurement import ArenaBuffer, Latency, Measurement, MemoryPlan
from tvmcompress.tuning.progress import TaskResult, TuningResult

EVIL = "model/<script>alert('&')</script>/" + "block_" * 30 + "Conv2D:0"
VOID = {"meta", "br"}
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Page(HTMLParser):
    """What a page consists of; fails where elements are not closed as they were opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    @property
    def sections(self) -> set[str]:
        return {str(attrs["id"]) for tag, attrs in self.tags if tag == "section"}


def measured(target: str, instructions: int | None) -> Measurement:
    """Of an emulated target, or of x86 where nothing was counted."""
    if instructions is None:
        return Measurement(
            target=target, source="hardware", latency=Latency(median_ms=0.5, p10_ms=0.4, p90_ms=0.7, runs=9), flash_bytes=4096
        )
    plan = MemoryPlan(
        steps=(EVIL, "fc"),
        buffers=(
            ArenaBuffer(holds=(EVIL,), workspace=False, offset=0, bytes=600, first=0, last=1),
            ArenaBuffer(holds=("fc",), workspace=False, offset=600, bytes=100, first=1, last=1),
            ArenaBuffer(holds=(EVIL,), workspace=True, offset=600, bytes=400, first=0, last=0),
        ),
    )
    return Measurement(
        target=target, source="qemu", instructions=instructions, layers={EVIL: instructions - 1000, "fc": 900}, memory=plan,
        flash_bytes=20480, ram_bytes=1200, arena_bytes=1000, arena_lower_bound=1000,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    """A report in which there is something of everything, with a name that is hard to show."""
    figures = (
        LayerFigures(name=EVIL, op="qconv2d", macs=9000, params=100, param_bytes=120, precision="int8"),
        LayerFigures(name="fc", op="matmul", macs=1000, params=10, param_bytes=40, precision="float32", why_float="no rule"),
    )
    noise = (
        LayerNoise(name=EVIL, op="conv2d", snr_db=5.5, channels=4, of_channels=8),
        LayerNoise(name="fc", op="matmul", snr_db=float("inf"), channels=1, of_channels=1),
    )
    versions = (("original", 40_000, 4000, 0.98), ("pruned", 10_000, 2000, 0.95), ("all", 10_000, 500, 0.94))
    models = tuple(
        ModelRecord(
            name=name, macs=macs, params=1000, weight_bytes=weights, figures=figures, layers=noise,
            evaluation=Evaluation(samples=600, accuracy=accuracy, correct=9, most_frequent=0.1, agreement=1.0),
        )
        for name, macs, weights, accuracy in versions
    )  # fmt: skip
    tuned = TuningResult([TaskResult(EVIL, 1, 9, default_cost=200.0, best_cost=150.0)], "/secret/place", unit="instructions")
    before, after = measured("cortex-m4", 90_000), measured("cortex-m4", 30_000)
    others = (
        RuntimeResult(runtime="onnxruntime", version="1.0", latency=Latency.of([1.0, 1.0]), largest_error=0.0),
        RuntimeResult(runtime="litert", version="2.0", problem="it takes .tflite files"),
    )
    builds = (
        BuildRecord(model="original", target="cortex-m4", measurement=before, checked_samples=8),
        BuildRecord(model="pruned", target="cortex-m4", problem="it does not fit & more", exit_code=3),
        BuildRecord(model="all", target="cortex-m4", measurement=after, checked_samples=8, tuning=tuned),
        BuildRecord(model="all", target="x86", measurement=measured("x86", None), checked_samples=8, runtimes=others),
    )
    points = tuple(SensitivityPoint(ratio=r, removed=int(8 * r), error=r, accuracy=1 - r) for r in (0.25, 0.5))
    group = PrunedGroup(name=EVIL, before=8, after=4, removed=(1, 2, 3, 4), macs=10, params=2, reason="lowest importance")
    return Report(
        source="model.onnx", host=Host.this(), models=models, builds=builds, recipe=Recipe.of({"prune": {"ratio": 0.5}}),
        steps=(StepRecord(name="prune", seconds=1.5, message="half of it"),),
        surgery=SurgeryRecord(
            macs_before=40_000, macs_after=10_000, params_before=9, params_after=5, blocks=("add_3",), groups=(group,)
        ),
        remarks=(RemarkRecord(pass_name="PruneChannels", subject=EVIL, message="it stays"),),
        sensitivity=Sensitivity(
            fingerprint="", importance="l2", samples=60, ratios=(0.25, 0.5), accuracy=0.99,
            groups=(GroupSensitivity(name=EVIL, size=8, points=points),),
        ),
        command="tvmcompress compress model.onnx --prune 0.5",
    )  # fmt: skip


ALL = {
    *("models", "runtimes", "fronts", "layers", "memory", "pruned", "precisions", "sensitivity", "tuning", "steps", "remarks"),
    "again",
}  # fmt: skip


def test_everything_is_there(report: Report) -> None:
    page = Page(html_page(report))
    assert page.sections == ALL
    text = page.text
    assert EVIL in text
    for words in (
        "94.00 %", "-4.00 points, the original has 98.00 %", "4.00x less than 40.0 k", "3.00x less than 90.0 k instr",
        "cortex-m4: it does not fit", "(exit code 3)", "it does not fit & more", "compressing took 1.50 s", "nothing trained",
        "29.0 k · 97 %", "5.5 dB", "exact", "120 B · 75 %", "fullest at step 1", "No plan is smaller.", "4 of 8",
        "lowest importance", "no rule", "90.0 %", "Each group pruned alone by l2", "25.0 %", "half of it", "it stays",
        "1.00 ms (2.00x)", "it takes .tflite files",
        "tvmcompress compress model.onnx --prune 0.5", "ratio = 0.5", report.host.tvm,
    ):  # fmt: skip
        assert words.replace("cortex-m4: ", "") in text, words
    assert "/secret" not in text


def test_it_needs_nothing_from_elsewhere(report: Report) -> None:
    page = html_page(report)
    tags = Page(page).tags
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags}
    assert not [value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href")]
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg"}
    assert len(page) < 100_000
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_a_small_report() -> None:
    """What there is nothing of has no section."""
    alone = Report(source="a.onnx", host=Host.this(), models=(ModelRecord(name="a", macs=5, params=1, weight_bytes=4),))
    assert Page(html_page(alone)).sections == {"models", "again"}


def test_notebooks(report: Report) -> None:
    shown = report._repr_html_()
    assert Page(shown).tags[0][1]["srcdoc"] == html_page(report)
    table = Page(report.builds[0]._repr_html_())
    assert "cortex-m4" in table.text
    assert "problem" not in table.text


def test_a_command_writes_it(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 50, "--eval",
        digits / "digits_test.npz", "--eval-skip", 500, "--prune", 0.5, "--quantize", "int8", "--keep-float", "pw2*",
        "-t", "x86", "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert str(out / "report.html") in ran.out.replace("\n", "")
    written = json.loads((out / "report.json").read_text())
    page = Page((out / "report.html").read_text())
    assert {"models", "fronts", "layers", "pruned", "precisions", "steps", "again"} <= page.sections
    assert written["command"] in page.text
    assert written["command"].startswith("tvmcompress compress ")
    assert "kept in float, as the recipe says" in page.text
    last = written["models"][1]
    assert {layer["precision"] for layer in last["figures"]} == {"int8", "float32"}
    assert sum(layer["macs"] for layer in last["figures"]) == last["macs"]
    assert {layer["name"] for layer in last["layers"]} >= {"stem.relu", "res1.relu"}


def test_node_data(digits: Path, tmp_path: Path, report: Report) -> None:
    """Values by tensors of model.onnx."""
    import onnx

    out = tmp_path / "out"
    given = ("--calib", digits / "digits_calib.npz", "--calib-samples", 20, "--quantize", "int8", "-o", out)
    assert run("compress", digits / "digits.onnx", *given).code == 0
    tensors = {name for node in onnx.load(out / "model.onnx").graph.node for name in node.output}
    for name in ("macs", "bytes", "snr_db"):
        data = json.loads((out / "node_data" / f"{name}.json").read_text())
        assert set(data["results"]) <= tensors
        assert all(isinstance(entry["value"], (int, float)) for entry in data["results"].values())
    found = node_data(report.models[-1], report.builds[2:])
    assert set(found) == {"macs", "bytes", "snr_db", "instructions-cortex-m4"}
    assert found["snr_db"]["results"]["fc"] == {"value": 120.0}


def test_the_front() -> None:
    points = [Point(*at, str(number)) for number, at in enumerate([(1, 5), (2, 4), (2, 7), (3, 7), (4, 9), (1, 4)])]
    assert [point.name for point in front(points)] == ["0", "2", "4"]


def test_axes_cover_their_values() -> None:
    for values in ([0.0, 7.3], [97.33, 99.67], [3e-4, 5e-4], [5.0, 5.0], [-2.0, 9e6]):
        axis = Axis.of(values, 10, 110)
        room = 1e-9 * (abs(axis.steps[0]) + abs(axis.steps[-1]))
        assert axis.steps[0] - room <= min(values) <= max(values) <= axis.steps[-1] + room
        assert 2 <= len(axis.steps) <= 8
        assert all(10 - 1e-6 <= axis.at(value) <= 110 + 1e-6 for value in values)
    for values in ([3.0, 70.0], [1.0, 1e6], [2e-3, 9e3], [4097.0, 90_000.0]):
        axis = Axis.of(values, 10, 110, logarithmic=True, unit=1024.0 if values[0] > 4096 else 1.0)
        assert axis.steps[0] <= min(values) * 1.001
        assert axis.steps[-1] >= max(values) * 0.999
    assert round_steps(0, 10) == [0, 2, 4, 6, 8, 10]


def test_points_that_are_close_keep_their_names_apart() -> None:
    points = [Point(10 + 0.1 * number, 90.0, f"version {number}") for number in range(5)]
    picture = ElementTree.fromstring(scatter(points, "t", "x", "y", str, str))
    names = [e for e in picture.iter() if e.tag.endswith("text") and (e.text or "").startswith("version")]
    places = [(float(e.attrib["x"]), float(e.attrib["y"])) for e in names]
    assert len(places) == 5
    assert all(abs(a[1] - b[1]) >= 12 or abs(a[0] - b[0]) >= 55 for i, a in enumerate(places) for b in places[:i])


def test_the_fullest_step() -> None:
    plan = measured("cortex-m4", 5000).memory
    assert plan is not None
    assert fullest_step(plan) == (1, EVIL)


WATCH = """<script>
const wide = document.documentElement.clientWidth;
const html = [...document.querySelectorAll("body *")].filter(e => !e.closest("svg"));
const out = html.filter(e => e.getBoundingClientRect().right > wide + 1).map(e => e.className);
const cut = [...document.querySelectorAll("svg text")].filter(e => {
  const own = e.getBoundingClientRect(), all = e.closest("svg").getBoundingClientRect();
  return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1 || own.bottom > all.bottom + 1;
});
parent.document.title = JSON.stringify([wide, document.documentElement.scrollWidth, out, cut.map(e => e.textContent)]);
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(width: int, report: Report, tmp_path: Path) -> None:
    page = html_page(report).replace("</body>", f"{WATCH}</body>").replace("<details>", "<details open>")
    place = tmp_path / "page.html"
    # In a frame, since windows are at least 500 pixels wide.
    place.write_text(f'<title></title><iframe srcdoc="{escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>')
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", place.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    wide, whole, out, cut = json.loads(unescape(title.group(1)))
    assert width - 20 <= wide <= width  # a bar to scroll may stand beside it
    assert (whole, out, cut) == (wide, [], [])


SMALLER = 8
"""Screenshots are compared at an eighth of their size: where things are and how dark, not each stroke of a letter."""
FONT = "DejaVu Sans"


def screenshot(page: str, width: int, folder: Path) -> np.ndarray:
    """A page in a window of this width, in a font that is the same everywhere."""
    place, picture = folder / "page.html", folder / "page.png"
    place.write_text(page.replace("</head>", f"<style>* {{ font-family: '{FONT}' !important; }}</style></head>"))
    subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},1400",
            f"--user-data-dir={folder / 'profile'}", "--force-device-scale-factor=1", f"--screenshot={picture}", place.as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return smaller(read_grey(picture), SMALLER)


def has_font() -> bool:
    """Whether the font of the pictures is here."""
    listed = shutil.which("fc-list")
    return listed is not None and FONT in subprocess.run([listed], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None or not has_font(), reason=f"no Chromium or no {FONT} here")
@pytest.mark.parametrize("width", [1280, 500])
def test_it_looks_as_it_did(width: int, report: Report, tmp_path: Path) -> None:
    """The pictures beside this file are what somebody has looked at; REMAKE_PICTURES=1 takes them again."""
    host = Host(cpu="a processor", cores=2, system="Linux x86_64", python="3.11", tvm="0.27", tvmcompress="0")
    page = html_page(report.model_copy(update={"host": host}))
    found, kept = screenshot(page, width, tmp_path), Path(__file__).parent / "pictures" / f"report_{width}.png"
    if os.environ.get("REMAKE_PICTURES"):
        write_grey(kept, found)
    expected = read_grey(kept)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 3
    assert np.quantile(np.abs(found - expected), 0.99) < 60
    # Without its style it is another page.
    bare = screenshot(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL), width, tmp_path)
    assert np.abs(bare - expected).mean() > 6
