from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from full_disk import no_file_beyond
from test_calibration import TENSORS, tiny_graph

from ampnet_opt.calibration import histogram
from ampnet_opt.calibration.histogram import INTERVAL, Histogram, arrays, collect, histograms
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.faces.face import Face

POINTS = np.zeros((5, 2), np.float32)
FACES = [Face(Path(f"{number}.png"), POINTS) for number in range(70)]
Batch = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "calibration"


def batch(faces: Sequence[Face]) -> Batch:
    """Inputs of the tiny graph, the values of later faces being larger, so that ranges double on the way."""
    numbers = [int(face.file.stem) for face in faces]
    draws = [np.random.default_rng(number).normal(0, 1.1**number, 64) for number in numbers]
    return np.array(draws, np.float32), np.array([np.full((5, 2), number) for number in numbers], np.float32)


class Run:
    """A calibration, and what was seen of it."""

    def __init__(self, size: int = 1, stop: int | None = None, faces: Sequence[Face] = FACES) -> None:
        self.size, self.stop, self.faces = size, stop, faces
        self.loaded: list[Face] = []
        self.progress: list[int] = []
        self.notes: list[str] = []

    def load(self, faces: Sequence[Face]) -> Iterator[Batch]:
        for start in range(0, len(faces), self.size):
            self.loaded += faces[start : start + self.size]
            yield batch(faces[start : start + self.size])

    def advance(self, done: int) -> None:
        self.progress.append(done)
        if done == self.stop:
            raise KeyboardInterrupt

    def __call__(
        self,
        model: onnx.ModelProto | None = None,
        tensors: Sequence[str] = TENSORS,
        graph: str = "ab" * 32,
        data: str = "cd" * 32,
    ) -> dict[str, Histogram]:
        model = tiny_graph() if model is None else model
        return histograms(
            model,
            tensors,
            self.faces,
            self.load,
            graph_sha256=graph,
            data_fingerprint=data,
            progress=self.advance,
            note=self.notes.append,
        )


def uncached(size: int = 1, faces: Sequence[Face] = FACES) -> dict[str, Histogram]:
    return collect(tiny_graph(), TENSORS, Run(size).load(faces))


def require_equal(found: dict[str, Histogram], expected: dict[str, Histogram]) -> None:
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        assert (found[name].limit, found[name].amax) == (wanted.limit, wanted.amax)
        assert found[name].counts.dtype == wanted.counts.dtype
        np.testing.assert_array_equal(found[name].counts, wanted.counts)


def require_cached(expected: dict[str, Histogram]) -> None:
    """An empty graph cannot run: what it gives was in the cache."""
    run = Run()
    require_equal(run(onnx.ModelProto()), expected)
    assert (run.loaded, run.progress, run.notes) == ([], [70], [])


def test_a_second_run_needs_no_graph(folder: Path) -> None:
    first = Run()
    found = first()
    assert first.progress == list(range(1, 71))
    require_equal(found, uncached())
    require_cached(found)
    (file,) = folder.iterdir()
    assert file.suffix == ".npz"


@pytest.mark.parametrize("change", [{"graph": "ef" * 32}, {"data": "ef" * 32}, {"tensors": TENSORS[::-1]}])
def test_another_graph_data_or_choice_of_tensors_is_another_entry(change: dict, folder: Path) -> None:
    Run()()
    other = Run()
    other(**change)
    assert other.loaded == FACES
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("version", ["histogram.VERSION", "histogram.__version__", "onnxruntime.__version__"])
def test_another_version_is_another_entry(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Run()()
    monkeypatch.setattr(f"ampnet_opt.calibration.histogram.{version.removeprefix('histogram.')}", "another")
    other = Run()
    other()
    assert other.loaded == FACES


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("stop", [5, 30, 35, 40, 65, 70])
def test_a_run_that_was_stopped_goes_on_where_it_was_stored(stop: int, size: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(size, stop)()
    stored = 0
    for done in range(size, stop + 1, size):
        if done - stored >= INTERVAL or done == len(FACES):
            stored = done
    second = Run(size)
    require_equal(second(), uncached(size))
    assert second.loaded == FACES[stored:]
    assert second.progress == [stored] * (stored > 0) + list(range(stored + size, 71, size))
    assert second.notes == []
    require_cached(uncached(size))


def test_a_run_may_be_stopped_again_and_again() -> None:
    loaded = 0
    for stop in (33, 50, 64, 69):
        run = Run(stop=stop)
        with pytest.raises(KeyboardInterrupt):
            run()
        loaded += len(run.loaded)
    assert loaded == 33 + (50 - 32) + (64 - 32) + (69 - 64)
    require_equal(Run()(), uncached())


def test_faces_that_fail_leave_what_was_done_before_them() -> None:
    broken = tiny_graph(factor=1e36)  # only late faces are large enough for infinity
    with pytest.raises(AmpnetError, match="tensor scaled holds NaN or infinity"):
        Run()(broken)
    second = Run()
    with pytest.raises(AmpnetError, match="tensor scaled holds NaN or infinity"):
        second(broken)
    assert second.progress[0] == INTERVAL


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("no archive"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "the beginning lost": lambda file: file.write_bytes(file.read_bytes()[100:]),
    "one array": lambda file: file.write_bytes(np.lib.format.magic(1, 0)),
    "other arrays": lambda file: np.savez(file, done=70),
    "fewer tensors": lambda file: np.savez(file, done=70, counts=np.ones((2, 9), int), limit=np.ones(2), amax=np.ones(2)),
    "pickles": lambda file: np.savez(file, done=70, counts=np.array([{}] * 3), limit=np.ones(3), amax=np.ones(3)),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_replaced(kind: str, folder: Path) -> None:
    expected = Run()()
    (file,) = folder.iterdir()
    DAMAGES[kind](file)
    run = Run()
    require_equal(run(), expected)
    assert run.loaded == FACES and run.notes == []
    require_cached(expected)
    assert list(folder.iterdir()) == [file]


def test_no_flipped_bit_is_taken_for_data(folder: Path) -> None:
    faces = FACES[:2]
    expected = Run(faces=faces)()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 150):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        run = Run(faces=faces)
        require_equal(run(), expected)


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    run = Run()
    require_equal(run(), uncached())
    (note,) = run.notes
    assert note.startswith("this calibration is not cached: cannot write ") and "a file, not a directory" in note


def test_a_full_disk_is_said_once_and_leaves_nothing(folder: Path) -> None:
    run = Run()
    with no_file_beyond(100):
        found = run()
    require_equal(found, uncached())
    assert len(run.notes) == 1 and "not cached" in run.notes[0]
    assert list(folder.iterdir()) == []


def test_only_the_newest_files_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(faces=FACES[:1])(data="first")
    (first,) = folder.iterdir()
    monkeypatch.setattr(histogram, "LARGEST_CACHE", int(4.5 * first.stat().st_size))
    first.unlink()
    for number in range(8):
        Run(faces=FACES[:1])(data=str(number))
    assert len(list(folder.iterdir())) == 4
    for number in (4, 7):
        run = Run(faces=FACES[:1])
        run(data=str(number))
        assert run.loaded == []


def test_without_a_folder_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(name: str) -> Path:
        raise AmpnetError("there is no home directory")

    monkeypatch.setattr(histogram, "cache_folder", homeless)
    run = Run()
    require_equal(run(), uncached())
    assert run.notes == ["this calibration is not cached: there is no home directory"]


class Arrays:
    """Arrays that are made anew only where the cache does not have them."""

    def __init__(self) -> None:
        self.made = 0

    def make(self) -> dict[str, np.ndarray]:
        self.made += 1
        return {"/model/a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float32)}

    def __call__(self, *key: object) -> None:
        found = arrays(key, ["/model/a", "b"], self.make)
        assert list(found) == ["/model/a", "b"]
        for name, expected in Arrays().make().items():
            np.testing.assert_array_equal(found[name], expected)
            assert found[name].dtype == np.float32


def test_arrays_are_made_once_for_each_key(folder: Path) -> None:
    run = Arrays()
    for key in (["bias", 1.5], ["bias", 1.5], ["bias", 2.5], ["bias", 1.5]):
        run(*key)
    assert run.made == 2
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_arrays_are_made_again(kind: str, folder: Path) -> None:
    run = Arrays()
    run("bias")
    (file,) = folder.iterdir()
    DAMAGES[kind](file)
    run("bias")
    run("bias")
    assert run.made == 2


def test_arrays_are_made_where_no_cache_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    run = Arrays()
    run("bias")
    run("bias")
    assert run.made == 2
