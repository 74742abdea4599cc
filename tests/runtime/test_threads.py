"""One engine and many users: threads, closing, forked children, directories that are replaced, and files of the cache."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import CLASSES, save_engine
from hypothesis import given, settings
from hypothesis import strategies as st

from ampnet_opt.convert.export import export
from ampnet_opt.core.cache import DIGEST, UnsafeCache, cache_folder, hashed_file, new_hashed_file
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.lifetime import Calls
from ampnet_opt.network.checkpoint import read_checkpoint, save_checkpoint
from ampnet_opt.network.model import AMPNet
from ampnet_opt.runtime import Engine
from ampnet_opt.runtime.openvino import compiled
from ampnet_opt.runtime.sidecar import parse_sidecar, read_sidecar

pytest.importorskip("openvino", reason="the engines of these tests run in OpenVINO")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and owners of files")
RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (9, 224, 224, 3), np.uint8)
POINTS = RNG.uniform(0, 224, (9, 5, 2)).astype(np.float32)
PATIENCE = 120  # seconds, for what must not hang


def faces(count: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = [(first + i) % len(IMAGES) for i in range(count)]
    return IMAGES[rows], POINTS[rows]


CALLS = int(os.environ.get("AMPNET_OPT_THREAD_CALLS", "1000"))  # 10000 take minutes


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two engines of the narrowest network, whose seeded heads are scaled up so that logits answer to the face."""
    folder = tmp_path_factory.mktemp("engines")
    made = {}
    for seed, name in enumerate(("one", "other")):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = AMPNet(len(CLASSES), 1 / 32).eval()
            model.patch_head.weight *= 300
            model.global_head.weight *= 300
        save_checkpoint(folder / f"{name}.safetensors", model, CLASSES, trained=False)
        checkpoint = read_checkpoint(folder / f"{name}.safetensors")
        made[name] = save_engine(export(checkpoint), checkpoint.sha256, folder / name)
    return made


@pytest.fixture(scope="module")
def engine(engines: dict[str, Path]) -> Iterator[Engine]:
    with Engine.load(engines["one"], threads=1) as loaded:
        yield loaded


@pytest.fixture
def own(engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an engine to change, and an empty cache."""
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(engines["one"], tmp_path / "engine"))


def each(engine: Engine, count: int, first: int = 0) -> np.ndarray:
    return np.stack(list(engine.infer_each(zip(*faces(count, first), strict=True))))


@pytest.mark.parametrize("calls", [400, pytest.param(CALLS, marks=pytest.mark.slow)])
def test_eight_threads_get_the_answers_of_one_bit_for_bit(engine: Engine, calls: int) -> None:
    sizes = (1, 1, 2, 1, 3)
    right = {(size, first): engine.infer(*faces(size, first)) for size in set(sizes) for first in range(9)}
    assert len({logits.tobytes() for logits in right.values()}) == len(right)  # else any answer would do
    right_each = {first: each(engine, 10, first) for first in range(3)}

    def work(thread: int) -> int:
        wrong = 0
        for i in range(calls // 8):
            if i % 50 == thread:
                wrong += not np.array_equal(each(engine, 10, i % 3), right_each[i % 3])
            key = sizes[(i + thread) % 5], (i * 7 + thread) % 9
            wrong += not np.array_equal(engine.infer(*faces(*key)), right[key])
        return wrong

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 0


def test_threads_that_compile_at_once_get_one_graph_each_of_which_answers(engines: dict[str, Path], engine: Engine) -> None:
    expected, expected_each = engine.infer(*faces(1)), each(engine, 9)
    with Engine.load(engines["one"], threads=1) as fresh, ThreadPoolExecutor(6) as threads:
        single = [threads.submit(fresh.infer, *faces(1)) for _ in range(3)]
        many = [threads.submit(each, fresh, 9) for _ in range(3)]
        assert all(np.array_equal(future.result(), expected) for future in single)
        assert all(np.array_equal(future.result(), expected_each) for future in many)


def test_threads_that_infer_on_streams_get_the_answers_of_one(engines: dict[str, Path], engine: Engine) -> None:
    right = {first: engine.infer(*faces(1, first)) for first in range(9)}
    with Engine.load(engines["one"], threads=3) as loaded, ThreadPoolExecutor(8) as threads:
        assert loaded.streams == 3
        found = list(threads.map(lambda i: loaded.infer_on_stream(*faces(1, i % 9)), range(90)))
        several = loaded.infer_on_stream(*faces(3))
    assert all(np.array_equal(logits, right[i % 9]) for i, logits in enumerate(found))
    np.testing.assert_allclose(several, engine.infer(*faces(3)), atol=1e-5)
    with pytest.raises(AmpnetError, match="the engine is closed"):
        loaded.infer_on_stream(*faces(1))


def test_one_stream_is_the_graph_of_all_cores(engine: Engine) -> None:
    assert engine.streams == 1
    np.testing.assert_array_equal(engine.infer_on_stream(*faces(1)), engine.infer(*faces(1)))
    assert {streams for _, streams in engine._executor._requests} == {1}  # type: ignore[attr-defined]


def test_the_file_of_a_kept_graph_is_not_written_to_and_gives_memory_back(own: Path) -> None:
    with Engine.load(own, threads=2) as loaded:
        expected = loaded.infer(*faces(1))  # compiles and keeps
    with Engine.load(own, threads=2) as loaded:
        np.testing.assert_array_equal(loaded.infer(*faces(1)), expected)
        mapped = mapped_memory(own.parent / "cache")
    assert mapped["Private_Dirty"] == 0  # what was written there would be lost
    assert 0 < mapped["Rss"] < mapped["Size"]


def mapped_memory(folder: Path) -> dict[str, int]:
    """Kilobytes of this process's mappings of files below `folder`, by what Linux counts."""
    smaps, total, ours = Path("/proc/self/smaps"), {"Size": 0, "Rss": 0, "Private_Dirty": 0}, False
    if not smaps.exists():
        pytest.skip("this system does not list mapped memory")
    for line in smaps.read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            ours = str(folder) in line
        elif ours and name[:-1] in total:
            total[name[:-1]] += int(rest[0])
    return total


def test_results_shared_by_threads_are_given_once_each(engine: Engine) -> None:
    expected = each(engine, 40)
    results = engine.infer_each(zip(*faces(40), strict=True))
    with ThreadPoolExecutor(4) as threads:
        found = [row for part in threads.map(lambda _: list(results), range(4)) for row in part]
    assert sorted(row.tobytes() for row in found) == sorted(row.tobytes() for row in expected)


def test_infer_may_be_called_while_results_are_read_and_by_the_faces_themselves(engine: Engine) -> None:
    expected, expected_each = engine.infer(*faces(2)), each(engine, 30)
    given_faces = list(zip(*faces(30), strict=True))

    def looking() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for face in given_faces:
            np.testing.assert_array_equal(engine.infer(*faces(2)), expected)
            yield face

    for row, right in zip(engine.infer_each(looking()), expected_each, strict=True):
        np.testing.assert_array_equal(row, right)
        np.testing.assert_array_equal(engine.infer(*faces(2)), expected)


def test_close_waits_for_calls_and_ends_half_read_results(engines: dict[str, Path], engine: Engine) -> None:
    expected = engine.infer(*faces(1))
    loaded = Engine.load(engines["one"], threads=1)
    half = loaded.infer_each(zip(*faces(60), strict=True))
    next(half)
    answers: list[np.ndarray] = []
    refusals: list[str] = []
    begun = threading.Barrier(5)

    def work() -> None:
        loaded.infer(*faces(1))
        begun.wait(PATIENCE)
        try:
            while True:
                answers.append(loaded.infer(*faces(1)))
        except AmpnetError as error:
            refusals.append(str(error))

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(work) for _ in range(4)]
        begun.wait(PATIENCE)
        time.sleep(0.2)
        loaded.close()
        for future in futures:
            future.result(PATIENCE)
    assert refusals == ["the engine is closed; load it again"] * 4
    assert all(np.array_equal(answer, expected) for answer in answers)
    loaded.close()
    for use in (
        lambda: next(half),
        lambda: loaded.infer(*faces(1)),
        lambda: loaded.infer_each(iter(())),
        lambda: loaded.__enter__(),
    ):
        with pytest.raises(AmpnetError, match=r"^the engine is closed; load it again$"):
            use()


def test_results_that_were_read_or_closed_end_as_iterators_do(engines: dict[str, Path]) -> None:
    with Engine.load(engines["one"], threads=1) as loaded:
        read = loaded.infer_each(zip(*faces(2), strict=True))
        assert len(list(read)) == 2
        left = loaded.infer_each(zip(*faces(60), strict=True))
        next(left)
        left.close()
        assert list(left) == []
    assert list(read) == list(left) == []


def test_faces_that_close_their_engine_are_told_that_they_cannot(engines: dict[str, Path]) -> None:
    with Engine.load(engines["one"], threads=1) as loaded:

        def closing() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            loaded.close()
            yield faces(1)

        with pytest.raises(AmpnetError, match="cannot be closed by what one of its own calls runs"):
            list(loaded.infer_each(closing()))
        assert loaded.infer(*faces(1)).shape == (1, len(CLASSES))


def test_an_engine_that_is_lost_with_results_half_read_is_freed(own: Path) -> None:
    expected = None
    for _ in range(2):  # compiled, then mapped from the cache
        loaded = Engine.load(own, threads=1)
        half = loaded.infer_each(zip(*faces(40), strict=True))
        rows = [next(half)]
        del loaded
        gc.collect()
        rows += [next(half) for _ in range(20)]
        expected = rows if expected is None else expected
        np.testing.assert_array_equal(rows, expected)
        del half
        gc.collect()


def test_a_call_that_is_lost_to_an_exception_is_not_waited_for() -> None:
    calls, freed = Calls(), []

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        calls.run(fail)
    calls.close(lambda: freed.append(1))  # while the exception still holds the frames of the call
    assert freed == [1] and caught.traceback
    with pytest.raises(AmpnetError, match="is closed"):
        calls.run(fail)


@pytest.mark.parametrize("kind", ["read-only", "mapped read-only", "Fortran order", "every second", "reversed"])
def test_arrays_of_every_kind_are_taken_and_left_as_they_are(engine: Engine, tmp_path: Path, kind: str) -> None:
    images, points = faces(3)
    expected = engine.infer(images, points)
    if kind == "read-only":
        images.flags.writeable = points.flags.writeable = False
    elif kind == "mapped read-only":  # a write to it would end the process
        (tmp_path / "images").write_bytes(images.tobytes())
        with open(tmp_path / "images", "rb") as file:
            images = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8).reshape(images.shape)
        points = np.frombuffer(points.tobytes(), np.float32).reshape(points.shape)
    elif kind == "Fortran order":
        images, points = np.asfortranarray(images), np.asfortranarray(points)
    elif kind == "every second":
        images, points = np.repeat(images, 2, 0)[::2], np.repeat(points, 2, 0)[::2]
    else:
        images, points = images[:, ::-1].copy()[:, ::-1], points[::-1].copy()[::-1]
    before = images.tobytes(), points.tobytes()
    np.testing.assert_array_equal(engine.infer(images, points), expected)
    assert len(list(engine.infer_each(zip(images, points, strict=True)))) == 3
    assert (images.tobytes(), points.tobytes()) == before


PREAMBLE = """
import gc, os, signal, sys, threading, time, warnings
import numpy as np
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import Engine
warnings.simplefilter("ignore")  # fork beside threads is what is tested
image, points = np.full((1, 224, 224, 3), 90, np.uint8), np.full((1, 5, 2), 100, np.float32)
engine = Engine.load(sys.argv[1], threads=1)
right = engine.infer(image, points)
def many(count):
    return ((image[0], points[0]) for _ in range(count))
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)  # with all that an interpreter does at its end
    return os.waitpid(pid, 0)[1]
"""


def run_script(script: str, engine: Path) -> str:
    code = PREAMBLE + textwrap.dedent(script)
    result = subprocess.run(
        [sys.executable, "-c", code, str(engine)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@posix
@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_is_told_at_once_and_ends(engines: dict[str, Path], busy: bool) -> None:
    script = f"""
    stop, half = threading.Event(), engine.infer_each(many(60))
    next(half)
    def infer():
        while not stop.is_set():
            engine.infer(image, points)
    thread = threading.Thread(target=infer)
    if {busy}:
        thread.start()
        time.sleep(0.1)
    def work():
        global engine, half
        uses = [lambda: engine.infer(image, points), lambda: engine.infer_each(many(1)), lambda: next(half),
                engine.__enter__, lambda: Engine.load(sys.argv[1])]
        for use in uses:
            try:
                use()
            except AmpnetError as error:
                assert "forked" in str(error), error
            else:
                os._exit(9)
        half.close()
        engine.close()
        del half, engine
        gc.collect()
    statuses = {{child(work) for _ in range(5)}}
    stop.set()
    if {busy}:
        thread.join()
    assert len(list(half)) == 59 and (engine.infer(image, points) == right).all()
    print(statuses)
    """
    assert run_script(script, engines["one"]) == "{0}\n"


@posix
def test_an_engine_that_is_loaded_in_the_child_alone_works(engines: dict[str, Path]) -> None:
    script = (
        "import os, sys, numpy as np\nfrom ampnet_opt.runtime import Engine\n"
        "from ampnet_opt.runtime.openvino.backend import precisions\n"
        "precisions()\nif os.fork() == 0:\n    with Engine.load(sys.argv[1], threads=1) as engine:\n"
        "        print(engine.infer(np.zeros((1, 224, 224, 3), np.uint8), np.full((1, 5, 2), 100)).shape)\n"
        "    sys.exit(0)\nassert os.wait()[1] == 0"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(engines["one"])], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (result.returncode, result.stdout) == (0, f"(1, {len(CLASSES)})\n")


@posix
@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_ends_well_with_an_engine_in_use(engines: dict[str, Path], daemon: bool) -> None:
    script = f"""
    half = engine.infer_each(many(60))
    next(half)
    def infer():
        try:
            for _ in range(10 ** 6 if {daemon} else 20):
                engine.infer(image, points)
        except AmpnetError:
            assert {daemon}
    threading.Thread(target=infer, daemon={daemon}).start()
    time.sleep(0.1)
    print("end", flush=True)
    """
    assert run_script(script, engines["one"]) == "end\n"


@posix
def test_a_process_ends_at_once_whatever_its_daemon_threads_do_with_engines(engines: dict[str, Path]) -> None:
    script = """
    def over_and_over(work):
        try:
            while True:
                work()
        except AmpnetError:
            pass
    def stuck():
        yield from many(20)
        threading.Event().wait()
    works = [
        lambda: list(engine.infer_each(many(40))),
        lambda: next(engine.infer_each(many(40))),
        lambda: list(engine.infer_each(stuck())),
        lambda: engine.infer(np.repeat(image, 2000, 0), np.repeat(points, 2000, 0)),
        lambda: Engine.load(sys.argv[1], threads=1).infer(image, points),
    ]
    for work in works:
        threading.Thread(target=over_and_over, args=[work], daemon=True).start()
    time.sleep(0.5)
    print(time.time(), flush=True)
    """
    for _ in range(2):
        begun = float(run_script(script, engines["one"]))
        assert time.time() - begun < 40


@posix
def test_ctrl_c_in_the_midst_of_calls_leaves_the_engine_usable(engines: dict[str, Path]) -> None:
    script = """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop = threading.Event()
    def interrupt():
        while not stop.is_set():
            time.sleep(0.003 + 0.01 * np.random.random())
            os.kill(os.getpid(), signal.SIGINT)
    def calls(heard, limit):
        while heard < limit:
            try:
                while heard < limit:
                    assert (engine.infer(image.copy(), points.copy()) == right).all()
            except KeyboardInterrupt:
                heard += 1
    thread = threading.Thread(target=interrupt)
    while not stop.is_set():
        try:
            if not thread.ident:
                thread.start()
            calls(0, 150)
            stop.set()
        except KeyboardInterrupt:
            pass
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:
            pass
    assert (engine.infer(image, points) == right).all()
    engine.close()
    print("closed")
    """
    assert run_script(script, engines["one"]) == "closed\n"


def test_an_engine_that_was_replaced_after_loading_is_not_compiled(own: Path, engines: dict[str, Path]) -> None:
    with Engine.load(own, threads=1) as loaded:
        first = loaded.infer(*faces(1))
        shutil.rmtree(own)
        shutil.copytree(engines["other"], own)
        np.testing.assert_array_equal(loaded.infer(*faces(1)), first)
        for use in (lambda: loaded.infer(*faces(2)), lambda: each(loaded, 12)):
            with pytest.raises(AmpnetError, match="was replaced after it was loaded; load it again"):
                use()
    with Engine.load(engines["one"], threads=1) as one, Engine.load(engines["other"], threads=1) as other:
        right, wrong = one.infer(*faces(2)), other.infer(*faces(2))
    assert (right != wrong).any()
    shutil.rmtree(own)
    with Engine.load(Path(shutil.copytree(engines["one"], own)), threads=1) as again:
        np.testing.assert_array_equal(again.infer(*faces(2)), right)


@pytest.mark.parametrize("name", ["engine.xml", "engine.bin"])
def test_an_engine_that_was_edited_in_place_or_lost_is_not_compiled(own: Path, name: str) -> None:
    with Engine.load(own, threads=1) as loaded:
        content = bytearray((own / name).read_bytes())
        content[len(content) // 2] ^= 1
        (own / name).write_bytes(content)
        with pytest.raises(AmpnetError, match="was replaced after it was loaded; load it again"):
            loaded.infer(*faces(1))
        (own / name).unlink()
        with pytest.raises(AmpnetError, match="is gone since the engine was loaded"):
            loaded.infer(*faces(1))
    assert not list((own.parent / "cache").rglob("*.blob"))


def test_a_reader_of_directories_that_are_exchanged_sees_one_or_the_other(own: Path, engines: dict[str, Path]) -> None:
    """Also with `trusted`, which takes files that do not match their sidecar."""
    whole = {tuple(sorted(parse_sidecar(path).files.items())) for path in engines.values()}
    spare, aside = own.parent / "spare", own.parent / "aside"
    shutil.copytree(engines["other"], spare)
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            own.rename(aside)
            spare.rename(own)
            aside.rename(spare)
            time.sleep(0.05)  # more than a tick of the file system's clock, and time for a reader on a busy machine

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        read = tries = 0
        enough = time.monotonic() + PATIENCE
        while tries < 150 or (read <= 10 and time.monotonic() < enough):
            tries += 1
            try:
                assert tuple(sorted(read_sidecar(own, trusted=True).files.items())) in whole
                read += 1
            except AmpnetError as error:
                assert "does not exist" in str(error) or "again and again" in str(error)
    finally:
        stop.set()
        thread.join()
    assert read > 10


def test_no_damage_to_a_compiled_model_changes_an_answer(own: Path) -> None:
    def answer() -> np.ndarray:
        with Engine.load(own, threads=1) as loaded:
            return loaded.infer(*faces(1))

    first = answer()
    (blob,) = (own.parent / "cache").rglob("*.blob")
    content = blob.read_bytes()
    places = np.random.default_rng(1).integers(0, len(content), 6).tolist()
    for place in [0, len(content) - 1, len(content) - DIGEST - 1, *places]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        blob.write_bytes(damaged)
        np.testing.assert_array_equal(answer(), first)
        assert blob.read_bytes() != damaged, "a damaged file was kept"
    for rest in (b"", content[:20], content[:32], content[:-1], content + b"\0", content[1:]):
        blob.write_bytes(rest)
        np.testing.assert_array_equal(answer(), first)


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), content=st.binary(min_size=1, max_size=3000))
def test_a_flipped_bit_anywhere_is_found(
    place: float, bit: int, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    with new_hashed_file(path) as file:
        file.write(content)
    with hashed_file(path) as file:
        assert path.read_bytes()[:-DIGEST] == content
    whole = bytearray(path.read_bytes())
    whole[int(place * len(whole))] ^= 1 << bit
    path.write_bytes(whole)
    with pytest.raises(OSError, match="damaged"), hashed_file(path):
        pass


@posix
def test_new_cache_folders_and_files_are_the_users_alone(own: Path) -> None:
    mask = os.umask(0)
    try:
        with Engine.load(own, threads=1) as loaded:
            loaded.infer(*faces(1))
    finally:
        os.umask(mask)
    cache = own.parent / "cache"
    assert {path.stat().st_mode & 0o777 for path in (cache, cache / "openvino")} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in cache.rglob("*.blob")} == {0o600}


def foreign(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder, 12345, 12345)


@posix
@pytest.mark.parametrize("where", ["", "openvino"])
@pytest.mark.parametrize("change", [lambda folder: folder.chmod(0o770), lambda folder: folder.chmod(0o707), foreign])
def test_a_cache_that_others_may_write_to_is_not_used_and_one_warning_says_so(
    own: Path, where: str, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    compiled._warn_once.cache_clear()
    folder = cache_folder("openvino").parent / where
    change(folder)
    for _ in range(2):
        with Engine.load(own, threads=1) as loaded:
            assert np.isfinite(loaded.infer(*faces(1))).all()
    assert not list(folder.rglob("*.blob"))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1 and warnings[0].startswith(
        f"compiled models are not cached: the cache folder {folder} belongs"
    )
    with pytest.raises(UnsafeCache, match="chmod go-w"):
        cache_folder("openvino")


@posix
@pytest.mark.parametrize("where", ["", "openvino"])
def test_a_default_cache_that_others_could_write_to_is_emptied_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AMPNET_OPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    folder, kept = cache_folder("openvino"), tmp_path / "shared" / "kept"
    kept.mkdir()
    (kept / "file").write_text("of another program")
    (folder / "planted.blob").write_bytes(b"planted")
    (folder / "link").symlink_to(kept)
    (folder.parent / where).chmod(0o775)
    for _ in range(2):
        assert cache_folder("openvino") == folder
        assert list(folder.iterdir()) == [] and (kept / "file").exists()
        assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert [record.getMessage() for record in caplog.records] == [
        f"others could write to the cache folder {folder.parent / where}: it was emptied, and is now yours alone"
    ]


@posix
def test_a_link_to_a_folder_that_others_may_write_to_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMPNET_OPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (tmp_path / "elsewhere").chmod(0o775)
    (tmp_path / "ampnet-opt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeCache, match="chmod go-w"):
        cache_folder("openvino")
    assert (tmp_path / "elsewhere" / "file").exists()


@posix
def test_default_faces_are_drawn_for_one_command_where_the_cache_is_unsafe(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    code = (
        "import sys, ampnet_opt.synthetic.dataset as dataset\ndataset.DEFAULT_COUNTS = {'test': 1}\n"
        "for _ in range(2):\n    print(dataset.default_faces()[0].file)"
    )
    surroundings = {**os.environ, "AMPNET_OPT_CACHE": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=surroundings, timeout=PATIENCE
    )
    first, second = map(Path, result.stdout.split())
    assert first == second and first.suffix == ".jpg" and not first.parents[2].exists()
    assert result.stderr.count("is made for this command alone") == 1


@posix
def test_a_compiled_model_that_others_may_write_to_is_made_again(own: Path) -> None:
    for _ in range(2):
        with Engine.load(own, threads=1) as loaded:
            loaded.infer(*faces(1))
        (blob,) = (own.parent / "cache").rglob("*.blob")
        assert blob.stat().st_mode & 0o777 == 0o600
        blob.chmod(0o666)
