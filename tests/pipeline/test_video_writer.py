"""Videos as they are written: times, sizes, and what is left when the writer ends badly."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from full_disk import no_file_beyond

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.pipeline.sources import open_source
from ampnet_opt.pipeline.video_writer import CODECS, VideoWriter

av = pytest.importorskip("av")


def frame(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Of one colour, whose red value is 10 times the index."""
    return np.full((height, width, 3), (10 * index, 100, 200), np.uint8)


def write_video(path: Path, times: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4), size: tuple[int, int] = (64, 48)) -> Path:
    writer = VideoWriter(path, size, 10)
    for index, time in enumerate(times):
        writer.write(frame(index, *size), time)
    writer.close()
    return path


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_each_container_keeps_frames_and_colours(tmp_path: Path, suffix: str) -> None:
    frames = list(open_source(str(write_video(tmp_path / f"v{suffix}"))))
    assert len(frames) == 5
    for index, each in enumerate(frames):
        np.testing.assert_allclose(each.image.mean(axis=(0, 1)), (10 * index, 100, 200), atol=8)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_times_of_a_variable_rate_are_kept(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.04, 0.5, 0.51, 2.0]
    frames = list(open_source(str(write_video(tmp_path / f"v{suffix}", times))))
    np.testing.assert_allclose([each.time for each in frames], times, atol=0.002)


@pytest.mark.parametrize("size, written", [((63, 47), (64, 48)), ((1, 1), (2, 2)), ((64, 47), (64, 48))])
def test_odd_sizes_grow_by_a_pixel(tmp_path: Path, size: tuple[int, int], written: tuple[int, int]) -> None:
    first = next(iter(open_source(str(write_video(tmp_path / "v.mp4", [0.0, 0.1], size)))))
    assert first.image.shape == (written[1], written[0], 3)


@pytest.mark.parametrize("other", [(32, 24), (200, 48), (20, 90), (65, 49)])
def test_a_frame_of_another_size_is_fitted_whole_into_the_first(tmp_path: Path, other: tuple[int, int]) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", (64, 48), 10)
    writer.write(frame(0), 0.0)
    writer.write(np.full((other[1], other[0], 3), 250, np.uint8), 0.1)
    writer.close()
    last = list(open_source(str(tmp_path / "v.mp4")))[1].image
    assert last.shape == (48, 64, 3)
    share = min(64 / other[0], 48 / other[1]) ** 2 * other[0] * other[1] / (64 * 48)
    assert abs((last > 125).all(axis=2).mean() - share) < 0.1


def test_avi_counts_frames_at_the_rate_and_says_that_rate(tmp_path: Path) -> None:
    with av.open(str(write_video(tmp_path / "v.avi", [0.0, 0.1, 0.21, 0.5, 0.52, 2.0]))) as whole:
        stream = whole.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.duration * stream.time_base) == (10, 21, Fraction(21, 10))
        assert [packet.dts for packet in whole.demux(stream) if packet.size] == [0, 1, 2, 5, 6, 20]


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_the_first_frame_is_shown_at_once_and_the_others_in_step(tmp_path: Path, suffix: str) -> None:
    """Our own reader counts from its first frame, whenever that is; players wait for it."""
    times = [index / 10 for index in range(20)]
    path = write_video(tmp_path / f"v{suffix}", times)
    with av.open(str(path)) as whole:
        packets = [packet for packet in whole.demux(video=0) if packet.size]
    assert min(packet.dts if suffix == ".avi" else packet.pts for packet in packets) == 0  # AVI has no other
    assert [each.time for each in open_source(str(path))] == pytest.approx(times, abs=0.002)


def test_times_that_stand_still_give_frames_that_follow_each_other(tmp_path: Path) -> None:
    assert len(list(open_source(str(write_video(tmp_path / "v.mp4", [0.0, 0.0, 0.0]))))) == 3


def test_a_suffix_of_no_format_is_said(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"must end in \.mp4"):
        VideoWriter(tmp_path / "v.doc", (64, 48))
    assert not (tmp_path / "v.doc").exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_what_was_written_before_a_kill_plays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    script = (
        "import os, signal, sys, numpy as np\n"
        "from ampnet_opt.pipeline.video_writer import VideoWriter\n"
        "writer, rng = VideoWriter(sys.argv[1], (160, 120), 10), np.random.default_rng(0)\n"
        "for index in range(150): writer.write(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), index / 10)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    frames = list(open_source(str(path)))
    assert 50 <= len(frames) <= 150, "all but the encoder's and the fragment's few seconds"


def test_a_full_disk_is_said_and_what_was_written_plays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    writer = VideoWriter(tmp_path / "v.mp4", (320, 240), 10)
    with no_file_beyond(2_000_000):
        with pytest.raises(AmpnetError, match="what was written stays"):
            for index in range(400):
                writer.write(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), index / 10)
        with pytest.raises(AmpnetError):
            writer.close()
        writer.close()
    assert len(list(open_source(str(tmp_path / "v.mp4")))) > 5


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AmpnetError, match="cannot write"):
        VideoWriter(tmp_path / "file" / "v.mp4", (64, 48))
