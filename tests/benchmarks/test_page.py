from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from small import float_graph, placement

from ampnet_opt.benchmarks.compare import METHOD, REFERENCE, Report, Result, environment
from ampnet_opt.benchmarks.page.activations import worst_activations
from ampnet_opt.benchmarks.page.charts import axis_over, histogram
from ampnet_opt.benchmarks.page.data import MOST_FACES, PICTURE, Activation, Page, page_of, paired
from ampnet_opt.benchmarks.page.details import nats
from ampnet_opt.benchmarks.page.html import VOID, signed
from ampnet_opt.benchmarks.page.render import render_page
from ampnet_opt.benchmarks.report import DRAWN, percent
from ampnet_opt.calibration.histogram import Histogram
from ampnet_opt.calibration.table import CalibrationTable
from ampnet_opt.convert.source import Source
from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.metrics import Estimate, accuracy, agreement, confusion_matrix, latency
from ampnet_opt.faces.face import Face
from ampnet_opt.sensitivity.analysis import Row, Sensitivity
from ampnet_opt.sensitivity.effect import Effect

HOSTILE = "<b>&\"x'"
CLASSES = (HOSTILE, "anger", "a class with quite a long name, which has to go somewhere", "happiness", "neutral")
FACES = 60
SHA = hashlib.sha256(b"checkpoint").hexdigest()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")


def results_of(logits: list[np.ndarray], labels: np.ndarray) -> list[Result]:
    rng = np.random.default_rng(1)
    kinds = [(REFERENCE, "torch", "fp32"), (f"cpu-fp32{HOSTILE}", "cpu", "fp32"), ("cpu-int8", "cpu", "int8")]
    return [
        Result(
            name,
            backend,
            precision,
            True,
            True,
            accuracy(found, labels, CLASSES),
            agreement(found, logits[0]),
            latency(rng.uniform(0.01, 0.02, 20).tolist(), 1),
            1_000_000 * (i + 1),
            None if i else 200_000_000,
        )
        for i, ((name, backend, precision), found) in enumerate(zip(kinds, logits, strict=True))
    ]


def sensitivity_of(checkpoint_sha256: str, units: int = 30) -> Sensitivity:
    rows = [
        Row(f"trunk.{i}.{HOSTILE}", "layer", (f"/{i}/Conv",), (f"/{i}/Relu",), Effect(30.0 + i, 0.5**i, 0.9, 0.6))
        for i in range(units)
    ]
    whole = Effect(9.0, 2.0, 0.8, 0.5)
    return Sensitivity(checkpoint_sha256, "1" * 64, "2" * 64, 128, "entropy", "only", 0.625, whole, rows)


def pad_batch(values: np.ndarray) -> Histogram:
    found = Histogram()
    found.add(values)
    return found


@dataclass
class Case:
    """What a page is made of, and the page."""

    report: Report
    logits: list[np.ndarray]
    labels: np.ndarray
    faces: list[Face]
    page: Page
    html: str


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    labels = np.arange(FACES) % 4  # the last class has no face
    reference = rng.normal(0, 1, (FACES, len(CLASSES))).astype(np.float32)
    reference[np.arange(FACES), labels] += 2
    logits = [reference] + [reference + rng.normal(0, s, reference.shape).astype(np.float32) for s in (1e-6, 0.7)]
    faces = []
    for i in range(FACES):
        pixels = np.full((40, 60, 3), rng.integers(0, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        faces.append(Face(folder / f"{i}.png", np.full((5, 2), 20, np.float32), CLASSES[labels[i]]))
    report = Report(
        f"nets/{HOSTILE}.pth",
        SHA,
        CLASSES,
        FACES,
        1,
        2,
        environment([]),
        results_of(logits, labels),
        [f"Other work was running {HOSTILE}.", *METHOD],
    )
    tails = rng.standard_t(3, 100_000).astype(np.float32)
    activations = [
        Activation(f"layer{HOSTILE}", "/model/Relu", "cpu-int8", 8, pad_batch(tails), 6.0),
        Activation("over", "/model/Relu_1", "cpu-int8", 8, pad_batch(tails[:100]), 900.0),
        Activation("dead", "/model/Relu_2", "cpu-int8", 8, pad_batch(np.zeros(5, np.float32)), 127 * 2.0**-14),
    ]
    page = page_of(report, logits, labels, faces, sensitivity=sensitivity_of(SHA), activations=activations)
    return Case(report, logits, labels, faces, page, render_page(page))


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, tag: str, kind: str | None = None) -> list[Node]:
        below = [found for child in self.children for found in child.all(tag, kind)]
        return [self, *below] if self.tag == tag and kind in (None, *self.attributes.get("class", "").split()) else below

    def text(self) -> str:
        return "".join(self.texts)


class Strict(HTMLParser):
    """A tree of the page; an end tag that is not its start's fails."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.stack = [self.root]
        self.feed(html)
        self.close()
        assert self.stack == [self.root], f"left open: {[node.tag for node in self.stack[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for node in self.stack:
            node.texts.append(data)


def tree(html: str) -> Node:
    return Strict(html).root


def everything(node: Node) -> list[Node]:
    return [node, *(found for child in node.children for found in everything(child))]


def test_the_page_is_balanced_and_needs_nothing_from_outside(case: Case) -> None:
    root = tree(case.html)
    nodes = everything(root)
    assert not {node.tag for node in nodes} & {"script", "link", "iframe", "object", "base", "form"}
    assert "://" not in case.html
    assert "url(" not in case.html and "@import" not in case.html
    names = [node.attributes["id"] for node in nodes if "id" in node.attributes]
    assert len(names) == len(set(names))
    for node in nodes:
        assert not [name for name in node.attributes if name.startswith("on") or name in {"srcset", "action", "data"}]
        if "href" in node.attributes:
            assert node.attributes["href"][0] == "#" and node.attributes["href"][1:] in names
        if "src" in node.attributes:
            assert node.attributes["src"].startswith("data:image/jpeg;base64,")


def test_every_picture_has_words_and_every_head_a_scope(case: Case) -> None:
    root = tree(case.html)
    assert len(root.all("h1")) == 1
    for head in root.all("th"):
        assert head.attributes["scope"] in {"row", "col"}
        assert head.text().strip()
    for table in root.all("table"):
        assert table.all("caption")[0].text().strip()
    for picture in root.all("img"):
        assert picture.attributes["alt"].startswith("face labelled ")
    charts = [chart for chart in root.all("svg") if "preserveaspectratio" not in chart.attributes]
    assert len(charts) > 20
    for chart in charts:
        assert chart.attributes["role"] == "img"
        assert chart.attributes["aria-label"] == chart.all("title")[0].text() != ""


def test_what_users_named_is_text(case: Case) -> None:
    root = tree(case.html)
    assert not [b for b in root.all("b") if b.text().startswith("&")]
    assert HOSTILE not in case.html
    assert f"{HOSTILE}.pth: INT8 against FP32" == root.all("h1")[0].text()
    heads = {head.text() for head in root.all("th")}
    assert {HOSTILE, f"cpu-fp32{HOSTILE}", f"trunk.3.{HOSTILE}"} <= heads
    assert any(HOSTILE in note.text() for note in root.all("li"))
    assert any(HOSTILE in caption.text() for caption in root.all("figcaption"))
    assert any(picture.attributes["alt"].startswith(f"face labelled {HOSTILE},") for picture in root.all("img"))


def test_the_numbers_are_those_of_the_run(case: Case) -> None:
    root = tree(case.html)
    text = root.text()
    for result in case.report.results:
        for value in (result.accuracy.top1, result.accuracy.macro_f1, *(r.recall for r in result.accuracy.recalls)):
            assert percent(value) in text
    facts = " ".join(fact.text() for fact in root.all("dd"))
    place = case.report.environment
    assert all(word in facts for word in (SHA, place.date, place.cpu, place.system, *place.versions.values()))
    matrices = root.all("table", "confusion")
    for found, table in zip(case.logits, matrices, strict=True):
        expected = confusion_matrix(case.labels, found.argmax(1), len(CLASSES))
        rows = [[cell.texts[0] for cell in row.all("td")] for row in table.all("tbody")[0].all("tr")]
        assert rows == [[str(n) for n in row] for row in expected.tolist()]
    changes = [small.text() for small in matrices[2].all("small")]
    moved = confusion_matrix(case.labels, case.logits[2].argmax(1), len(CLASSES)) - confusion_matrix(
        case.labels, case.logits[0].argmax(1), len(CLASSES)
    )
    assert changes == [signed(n, 0) for n in moved.ravel() if n]
    assert not matrices[0].all("small") and not matrices[1].all("small")


def test_ranking_has_every_unit_in_the_order_of_the_file(case: Case) -> None:
    assert case.page.sensitivity is not None
    first, rest = tree(case.html).all("table", "ranking")
    rows = [*first.all("tbody")[0].all("tr"), *rest.all("tbody")[0].all("tr")]
    assert [row.all("th")[0].text() for row in rows] == [
        "every layer in INT8",
        *(row.name for row in case.page.sensitivity.rows),
    ]
    assert [cell.text() for cell in rows[1].all("td")][0::2] == ["1.00", "30.0", f"{signed(-2.5, 1)}"]
    bars = [float(bar.attributes["width"][:-1]) for row in rows for bar in row.all("rect", "bar")]
    assert bars == pytest.approx([100 * 0.5**i for i in range(30)], abs=0.01)


def test_faces_are_those_whose_probabilities_moved_most(case: Case) -> None:
    cards = tree(case.html).all("div", "face")
    before, after = (np.exp(x.astype(np.float64)) for x in (case.logits[0], case.logits[2]))
    before, after = before / before.sum(1, keepdims=True), after / after.sum(1, keepdims=True)
    furthest = np.abs(after - before).max(1)
    order = np.argsort(-furthest)[:MOST_FACES]
    assert [card.all("caption")[0].text() for card in cards] == [f"{i}.png" for i in order]
    for i, card in zip(order, cards, strict=True):
        label, reference, engine, moved = (["".join(c.text()) for c in row.all("td")] for row in card.all("tr"))
        assert label == [CLASSES[case.labels[i]], ""]
        assert reference == [CLASSES[before[i].argmax()], f"{100 * before[i].max():.1f}"]
        assert engine == [CLASSES[after[i].argmax()], f"{100 * after[i].max():.1f}"]
        apart = int(np.abs(after - before)[i].argmax())
        assert moved == [CLASSES[apart], signed(100 * (after - before)[i, apart], 1)]
        wrong = [(CLASSES[p[i].argmax()]) for p in (before, after) if p[i].argmax() != case.labels[i]]
        assert [span.text() for span in card.all("span", "wrong")] == wrong
        with Image.open(io.BytesIO(base64.b64decode(card.all("img")[0].attributes["src"].partition(",")[2]))) as picture:
            assert picture.size == (PICTURE, PICTURE)
            with Image.open(case.faces[i].file) as source:
                expected, middle = source.getpixel((30, 20)), picture.getpixel((PICTURE // 2, PICTURE // 2))
            assert np.abs(np.subtract(expected, middle)).max() <= 6  # JPEG


def test_a_page_without_pictures_keeps_the_answers(case: Case) -> None:
    page = page_of(case.report, case.logits, case.labels, case.faces, pictures=False)
    root = tree(render_page(page))
    assert "contains faces" in case.html
    assert "contains faces" not in root.text()
    assert not root.all("img")
    assert len(root.all("div", "face")) == MOST_FACES
    assert not root.all("table", "ranking") and not root.all("figure")


def test_engines_share_the_faces_and_a_comparison_without_int8_shows_none(case: Case) -> None:
    reference, *engines = case.report.results
    both = replace(case.report, results=[reference, *(replace(engine, precision="int8") for engine in engines)])
    html = render_page(page_of(both, case.logits, case.labels, case.faces))
    assert len(tree(html).all("div", "face")) == MOST_FACES
    alone = replace(case.report, results=[reference])
    html = render_page(page_of(alone, case.logits[:1], case.labels, case.faces))
    assert not tree(html).all("div", "face")
    assert "contains faces" not in html


def test_sensitivity_of_another_checkpoint_is_refused(case: Case) -> None:
    with pytest.raises(MisuseError, match=r"another|measure it again"):
        page_of(case.report, case.logits, case.labels, case.faces, sensitivity=sensitivity_of("3" * 64))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_paired_answers_add_up(seed: int, faces: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, faces)
    first, second = rng.normal(size=(2, faces, 3)).astype(np.float32)
    found = paired(first, second, labels)
    assert found.only_reference - found.only_engine == (first.argmax(1) == labels).sum() - (second.argmax(1) == labels).sum()
    differ = (first.argmax(1) != second.argmax(1)).sum()
    assert found.only_reference + found.only_engine + found.neither == differ


shares = st.floats(0, 1)


@example([[1.0, 1.0, 1.0]])
@given(st.lists(st.tuples(shares, shares, shares).map(sorted), min_size=1, max_size=5))
def test_an_axis_holds_every_interval(ends: list[list[float]]) -> None:
    estimates = [Estimate(middle, low, high) for low, middle, high in ends]
    axis = axis_over(estimates)
    assert -1e-9 <= axis.low < axis.high <= 1 + 1e-9
    assert len(axis.ticks()) <= 5
    for estimate in estimates:
        assert -1e-6 <= axis.at(estimate.low) <= axis.at(estimate.high) <= 100 + 1e-6


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.floats(0.01, 3))
@settings(deadline=None)
def test_clipped_share_is_that_of_the_values(seed: int, size: int, part: float) -> None:
    values = np.abs(np.random.default_rng(seed).normal(size=size)).astype(np.float32)
    seen = pad_batch(values)
    found = Activation("a", "b", "c", 1, seen, part * seen.amax)
    low, high = ((values > found.covered + shift).mean() for shift in (seen.width, -seen.width))
    assert low <= found.clipped <= high
    drawn = tree(histogram(seen.counts, seen.width, seen.amax, found.covered, "x"))
    numbers = [float(n) for path in drawn.all("path") for n in re.findall(r"-?[\d.]+", path.attributes["d"])]
    assert min(numbers) >= 0
    assert max(numbers) <= 100.01
    line = float(drawn.all("line", "range")[0].attributes["x1"][:-1])
    assert 0 < line <= 100


def test_activations_are_what_the_worst_layers_read_and_the_engine_covers(tmp_path: Path) -> None:
    source, engine = Source(float_graph(), "0" * 64, "uint8", placement(), "1" * 64), tmp_path / "cpu-int8"
    engine.mkdir()
    tensors = list(placement().tensors)
    scales = {name: 0.5 + i for i, name in enumerate(tensors)}
    CalibrationTable("entropy", 1, "0" * 64, "0" * 64, scales).write(engine / "calibration.json")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    faces = [Face(tmp_path / "face.png", np.full((5, 2), 100, np.float32), "a")]
    effect = Effect(30.0, 0.1, 1.0, 1.0)
    last = Row("last", "layer", ("l",), (tensors[-1], tensors[0]), effect)
    first = Row("first", "layer", ("f",), (tensors[0],), effect)
    found = worst_activations(source, engine, replace(sensitivity_of(SHA), rows=[last, first]), faces)
    assert [(a.layer, a.tensor, a.engine, a.faces) for a in found] == [
        ("last", tensors[-1], "cpu-int8", 1),
        ("last", tensors[0], "cpu-int8", 1),
    ]
    assert [a.covered for a in found] == [127 * scales[tensors[-1]], 127 * scales[tensors[0]]]
    picture = next(a for a in found if a.tensor == tensors[0]).histogram  # the first tensor is the image
    assert picture.counts.sum() == np.count_nonzero(pixels)
    assert picture.amax == pytest.approx(pixels.max(), rel=1e-6)

    new = Row("new", "layer", ("n",), ("/model/of/tomorrow",), effect)
    with pytest.raises(MisuseError, match="no INT8 range for /model/of/tomorrow"):
        worst_activations(source, engine, replace(sensitivity_of(SHA), rows=[new]), faces)


MEASURE = """
const measure = ({document: page, innerWidth}) => ({
  width: innerWidth,
  needed: page.documentElement.scrollWidth,
  beyond: [...page.querySelectorAll('body *')].filter(e => !e.closest('.scroll *, svg *')
    && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80)),
  pictures: [...page.images].map(i => i.complete && i.naturalWidth),
  paper: getComputedStyle(page.body).backgroundColor,
  charts: [...page.querySelectorAll('svg[role=img]')].filter(e => e.checkVisibility()).map(e => e.clientWidth),
})
addEventListener('load', () => { document.body.dataset.found = JSON.stringify(Array.from(frames, measure)) })
"""


def browse(file: Path, *options: str) -> tuple[str, str]:
    """The document after its scripts ran, and what the page's console said."""
    assert CHROMIUM is not None
    profile = f"--user-data-dir={file.parent}/profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", profile, *options]
    command = [CHROMIUM, *flags, "--dump-dom", file.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return run.stdout, "\n".join(line for line in run.stderr.splitlines() if "CONSOLE" in line)


def measured(html: str, folder: Path, *options: str) -> list[dict]:
    """What frames 1280 and 400 pixels wide make of a page; a window would not be made that narrow."""
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{escape(html)}"></iframe>' for width in (1280, 400))
    (folder / "frames.html").write_text(f"<!DOCTYPE html><script>{MEASURE}</script><body>{frames}", encoding="utf-8")
    found = re.search('data-found="([^"]*)"', browse(folder / "frames.html", *options)[0])
    assert found
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@browser
def test_a_browser_has_nothing_to_complain_of(case: Case, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(case.html, encoding="utf-8")
    document, console = browse(tmp_path / "report.html")
    assert not console
    # It read the tree that we wrote, and put nothing elsewhere.
    written, read = ([node.tag for node in everything(tree(text))] for text in (case.html, document))
    assert read == written
    # The policy in its head holds: nothing foreign would be fetched.
    foreign = case.html.replace("</header>", '<img src="file:///foreign.png" alt=""></header>')
    (tmp_path / "foreign.html").write_text(foreign, encoding="utf-8")
    assert "Content Security Policy" in browse(tmp_path / "foreign.html")[1]


@browser
def test_nothing_is_wider_than_the_window_and_every_picture_is_there(case: Case, tmp_path: Path) -> None:
    for frame, width in zip(measured(case.html, tmp_path), (1280, 400), strict=True):
        assert frame["beyond"] == [] and frame["width"] >= frame["needed"], frame
        assert width - 20 <= frame["width"] <= width  # less a scroll bar
        assert frame["beyond"] == []
        assert frame["pictures"] == [PICTURE] * MOST_FACES
        assert min(frame["charts"]) > 40
        assert frame["paper"] == "rgb(255, 255, 255)"


@browser
def test_the_page_is_dark_where_the_reader_wants_it(case: Case, tmp_path: Path) -> None:
    for frame in measured(case.html, tmp_path, "--blink-settings=preferredColorScheme=0"):
        paper = [int(part) for part in re.findall(r"\d+", frame["paper"])]
        assert max(paper) < 60


@given(st.floats(1e-9, 10))
def test_a_divergence_keeps_its_digits(value: float) -> None:
    assert float(nats(value)) == pytest.approx(value, rel=0.006 if value >= 1e-5 else 0.06) and len(nats(value)) <= 9


def test_drawn_faces_are_said_in_title_findings_and_warnings(case: Case) -> None:
    drawn = tree(render_page(replace(case.page, report=replace(case.report, drawn=True))))
    assert drawn.all("h1")[0].text().endswith("on drawn faces")
    assert all(f"{FACES} drawn faces" in item.text() for item in drawn.all("ul", "findings")[0].all("li"))
    assert drawn.all("ul", "warnings")[0].all("li")[0].text() == DRAWN
    assert "drawn" not in tree(case.html).all("h1")[0].text()


def test_unsteady_times_are_marked_where_they_are_drawn(case: Case) -> None:
    results = [*case.report.results]
    results[1] = replace(results[1], latency=replace(results[1].latency, p90=2 * results[1].latency.p50))
    html = render_page(replace(case.page, report=replace(case.report, results=results)))
    assert len(tree(html).all("rect", "unsteady")) == 1 and "Pale bars are unsteady" in html
    assert tree(case.html).all("rect", "unsteady") == []
