from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, ContextManager, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.cli.inputs import subjects_of
from ampnet_opt.core import files
from ampnet_opt.core.cache import cache_folder, forget_oldest
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import (
    new_directory,
    new_file,
    remove_abandoned,
    require_file,
    require_new,
    reserved,
    sha256,
    write_json,
    write_text,
)
from ampnet_opt.core.locks import BusyError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs flock and renameat2")
BOTH = pytest.mark.parametrize("make", [new_file, new_directory])
Make = Callable[[Path], ContextManager[Path]]


def fill(temporary: Path, text: str) -> None:
    (temporary / "inner" if temporary.is_dir() else temporary).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "" for p in sorted(folder.rglob("*"))}


@BOTH
def test_what_ends_well_stands_alone(tmp_path: Path, make: Make) -> None:
    target = tmp_path / "a" / "b" / "target.bin"
    for text in ("first", "second"):
        with make(target) as temporary:
            assert temporary.parent == target.parent and temporary != target
            fill(temporary, text)
        found = [text for text in tree(tmp_path).values() if text]
        assert found == [text] and len(list(target.parent.iterdir())) == 1


@BOTH
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "end", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), OSError(28, "No space left on device")]
)
def test_what_ends_badly_leaves_all_as_it_was(tmp_path: Path, make: Make, there: bool, end: BaseException) -> None:
    target = tmp_path / "a" / "b" / "target.bin"
    if there:
        with make(target) as temporary:
            fill(temporary, "old")
    before = tree(tmp_path)
    with pytest.raises(AmpnetError if isinstance(end, OSError) else type(end)):
        with make(target) as temporary:
            fill(temporary, "new")
            raise end
    assert tree(tmp_path) == before


def test_parents_that_others_use_stay(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        with new_file(tmp_path / "a" / "target"):
            (tmp_path / "a" / "other").write_text("x")
            raise ValueError
    assert tree(tmp_path) == {"a": "", "a/other": "x"}


def test_new_files_are_as_readable_as_any(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "ü")
        with new_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "file").read_bytes() == "ü".encode()


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers that it does not know the flags, as it does where two directories cannot change places."""
    monkeypatch.setattr("ampnet_opt.core.exchange.EXCHANGE", 1 << 20)
    monkeypatch.setattr("ampnet_opt.core.exchange.NOREPLACE", 1 << 20)


@pytest.mark.usefixtures("no_exchange")
def test_the_old_directory_comes_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real = tmp_path / "target", os.replace
    with new_directory(target) as temporary:
        fill(temporary, "old")
    for end in (OSError(5, "Input/output error"), KeyboardInterrupt()):

        def failing(source: Path, place: Path, end: BaseException = end) -> None:
            if place == target and not str(source).endswith(files.OLD):
                raise end
            real(source, place)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", failing)
            with pytest.raises((AmpnetError, KeyboardInterrupt)):
                with new_directory(target) as temporary:
                    fill(temporary, "new")
        assert tree(tmp_path) == {"target": "", "target/inner": "old"}


def test_a_directory_behind_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_directory(tmp_path / "link") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "inner").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    before = tree(tmp_path)
    cases = [
        (new_file, "folder", "it is a directory"),
        (new_directory, "file", "it is a file, not a directory"),
        (new_file, "file/below", "file is a file, not a directory"),
        (new_directory, "file/further/below", "file is a file, not a directory"),
    ]
    for make, name, reason in cases:
        with pytest.raises(MisuseError, match=reason) as caught:
            with make(tmp_path / name):
                pytest.fail("the work was begun all the same")
        assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(MisuseError, match="no regular file"):
        write_text(pipe, "x")
    assert pipe.is_fifo()


@contextmanager
def no_permission(folder: Path) -> Iterator[None]:
    """`folder` cannot be written; as root, who may write anywhere, by being somebody else for a while."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        for parent in (folder.parent, folder.parent.parent, folder.parent.parent.parent):
            if str(parent).startswith(tempfile.gettempdir() + os.sep):
                parent.chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@BOTH
def test_an_unwritable_directory_is_one_sentence(tmp_path: Path, make: Make) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    for name in ("target", "below/target"):
        with no_permission(folder), pytest.raises(AmpnetError) as caught:
            with make(folder / name):
                pytest.fail("the work was begun all the same")
        assert str(caught.value).startswith(f"cannot write {folder / name}: Permission denied")
        assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_directory, new_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
make, target = {"file": new_file, "directory": new_directory}[sys.argv[1]], sys.argv[2]
try:
    with make(target) as temporary:
        for part in range(3):
            (temporary / str(part) if temporary.is_dir() else temporary).write_bytes(bytes(500 + part * 500))
except AmpnetError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("resource", reason="file-size limits are of POSIX systems")
    target = tmp_path / "target"
    with (new_file if kind == "file" else new_directory)(target) as temporary:
        fill(temporary, "old")
    before = tree(tmp_path)
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, kind, str(target)], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"cannot write {target}: File too large") and ran.stdout.count("\n") == 1
    assert tree(tmp_path) == before


FULL_CHECKPOINT = """
import resource, signal, sys
from ampnet_opt.network.checkpoint import init_checkpoint
from ampnet_opt.core.errors import AmpnetError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    init_checkpoint(sys.argv[1], 1, 0.05, ["a", "b"])
except AmpnetError as error:
    print(error)
"""


def test_a_checkpoint_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="checkpoints need torch")
    target = tmp_path / "below" / "x.safetensors"
    ran = subprocess.run([sys.executable, "-c", FULL_CHECKPOINT, str(target)], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"cannot write {target}: ") and ran.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(AmpnetError, match=r"absent\.txt"):
        with new_file(tmp_path / "target"):
            (tmp_path / "absent.txt").read_text()
    with pytest.raises(AmpnetError) as caught:
        with new_file(tmp_path / "target") as temporary:
            temporary.unlink()
            temporary.read_text()
    assert temporary.name not in str(caught.value)


@BOTH
def test_a_reader_who_left_is_no_error_of_the_target(tmp_path: Path, make: Make) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", 0) as stdout, pytest.raises(BrokenPipeError):
        with make(tmp_path / "new" / "target"):
            stdout.write(b"said")
    assert list(tmp_path.iterdir()) == []


def test_required_and_free_places(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(MisuseError, match=f"model {file} does not exist"):
        require_file(file, "model")
    with pytest.raises(MisuseError, match="is a directory"):
        require_file(tmp_path, "model")
    assert require_new(file, force=False) == file
    write_json(file, {"a": [1]})
    assert json.loads(file.read_text()) == {"a": [1]} and require_file(str(file), "model") == file
    with pytest.raises(MisuseError, match="--force"):
        require_new(file, force=False)
    assert require_new(file, force=True) == file


@given(st.binary(max_size=300), st.integers(0, 2))
def test_fingerprints_are_of_every_byte(data: bytes, blocks: int) -> None:
    data = data + bytes(blocks << 20)
    path = Path(tempfile.gettempdir(), f"ampnet-sha-{os.getpid()}")
    try:
        path.write_bytes(data)
        assert sha256(path) == hashlib.sha256(data).hexdigest()
    finally:
        path.unlink(missing_ok=True)


def test_the_cache_follows_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMPNET_OPT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("faces") == tmp_path / "own" / "faces"
    monkeypatch.delenv("AMPNET_OPT_CACHE")
    assert cache_folder("faces") == tmp_path / "shared" / "ampnet-opt" / "faces"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("faces") == tmp_path / ".cache" / "ampnet-opt" / "faces"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMPNET_OPT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123_456_789)  # whom the system does not know
    with pytest.raises(AmpnetError, match="set AMPNET_OPT_CACHE"):
        cache_folder("faces")


def whole(target: Path) -> str:
    return (target / "inner").read_text()


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_two_writers_of_one_directory_end_with_one_and_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a" / "target"
    with new_directory(target) as first:
        fill(first, "first")
        with pytest.raises(BusyError, match=f"another process is writing {target}; wait for it"):
            with new_directory(target):
                pytest.fail("the work was begun all the same")
        with new_directory(target.with_name("other")) as other:
            fill(other, "other")
    assert tree(tmp_path / "a") == {"other": "", "other/inner": "other", "target": "", "target/inner": "first"}
    with new_directory(target) as second:
        fill(second, "second")
    assert whole(target) == "second"


def test_what_is_reserved_is_written_by_its_own_thread_alone(tmp_path: Path) -> None:
    target, other = tmp_path / "a" / "b" / "target", tmp_path / "other"

    def write_it() -> None:
        with new_directory(target):
            pytest.fail("another thread began with what is reserved")

    with ThreadPoolExecutor(1) as thread:
        with reserved(target, other):
            with pytest.raises(BusyError, match=f"another process is writing {target}; wait for it"):
                thread.submit(write_it).result(60)
            with pytest.raises(BusyError, match=f"another process is writing {other}; wait for it"):
                thread.submit(lambda: reserved(other).__enter__()).result(60)
            for text in ("first", "second"):
                with new_directory(target) as temporary:
                    fill(temporary, text)
        with pytest.raises(BusyError), new_directory(target), new_directory(target):
            pytest.fail("it was still reserved")
    assert tree(tmp_path / "a") == {"b": "", "b/target": "", "b/target/inner": "second"} and not other.exists()
    assert litter(tmp_path) == litter(target.parent) == []


def test_what_was_reserved_for_a_failure_leaves_nothing_and_the_failure_as_it_is(tmp_path: Path) -> None:
    error = OSError(errno.ENOENT, "no such picture", "x.jpg")
    with pytest.raises(OSError, match="no such picture") as caught, reserved(tmp_path / "a" / "b" / "target"):
        assert litter(tmp_path / "a" / "b") == [".target.lock"]
        raise error
    assert caught.value is error and list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(AmpnetError, match=r"cannot write .*target: .*nothing was changed"), reserved(
        tmp_path / "file" / "target"
    ):
        pytest.fail("no folder can be there")


WRITER = """
import sys
from pathlib import Path
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.files import new_directory
target, letter = sys.argv[1:]
done = 0
for _ in range(100):
    try:
        with new_directory(target, durable=False) as temporary:
            for number in range(5):
                (temporary / str(number)).write_text(letter * 1000)
        done += 1
    except AmpnetError as error:
        assert str(error) == f"another process is writing {target}; wait for it", error
print(done)
"""


@linux
def test_who_opens_a_directory_that_is_replaced_all_the_time_finds_one_of_them_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for number in range(5):
        (target / str(number)).write_text("c" * 1000)
    command = [sys.executable, "-c", WRITER, str(target)]
    writers = [subprocess.Popen([*command, letter], stdout=subprocess.PIPE, text=True) for letter in "ab"]
    looks = 0
    while any(writer.poll() is None for writer in writers):
        handle = os.open(target, os.O_RDONLY)  # never missing
        try:
            files_there = [os.open(str(number), os.O_RDONLY, dir_fd=handle) for number in range(5)]
        except FileNotFoundError:  # it was replaced since, and is being removed
            continue
        finally:
            os.close(handle)
        found = {os.read(file, 2000) for file in files_there}
        for file in files_there:
            os.close(file)
        assert found in ({b"a" * 1000}, {b"b" * 1000}, {b"c" * 1000})
        looks += 1
    assert looks > 0 and sum(int(writer.communicate()[0]) for writer in writers) >= 10
    assert [writer.returncode for writer in writers] == [0, 0] and litter(tmp_path) == []


KILLED = """
import os, sys
from ampnet_opt.core.files import new_directory, new_file
with (new_directory if sys.argv[2] == "directory" else new_file)(sys.argv[1]) as temporary:
    (temporary / "inner" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), 9)
"""


@linux
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_a_killed_process_left_is_swept_by_the_next_and_nothing_else_is(tmp_path: Path, kind: str) -> None:
    target, make = tmp_path / "target.bin", new_file if kind == "file" else new_directory
    for name in (".target.bin.mine", ".target.bin.0123456z.bin", ".target.bin.01234567", "target.bin.01234567.new"):
        (tmp_path / name).write_text("a user's")
    users = set(tmp_path.iterdir())
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(target), kind], check=False)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".target.bin.")]) > 3
    assert set(tmp_path.glob("[!.]*")) == {tmp_path / "target.bin.01234567.new"}
    with make(target) as temporary:
        fill(temporary, "new")
        assert {path for path in tmp_path.iterdir() if path.suffix != ".lock"} == users | {temporary}
    assert set(tmp_path.iterdir()) == users | {target}


@linux
def test_a_folder_of_many_files_is_swept_of_what_killed_processes_left_and_of_nothing_else(tmp_path: Path) -> None:
    for name in (".target.bin.mine", ".target.bin.0123456z.bin", ".target.jpg.01234567.png", "target.bin.01234567.bin"):
        (tmp_path / name).write_text("a user's")
    users = set(tmp_path.iterdir())
    for name in ("a.parquet", "b.jpg", "b\n2.jpg", "bare"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name), "file"], check=False)
    assert len(set(tmp_path.iterdir()) - users) == 4
    with new_file(tmp_path / "b.jpg", durable=False) as temporary:
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == users | {temporary}
    remove_abandoned(tmp_path / "missing")


REWRITER = """
import sys
from ampnet_opt.core.files import new_file
for number in range(200):
    with new_file(sys.argv[1]) as temporary:
        temporary.write_text(str(number))
"""


@linux
def test_processes_that_write_one_file_at_a_time_do_not_trip_over_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REWRITER, str(tmp_path / "target.bin")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [writer.communicate()[1] for writer in writers] == [b""] * 3
    assert (tmp_path / "target.bin").read_text() == "199" and litter(tmp_path) == []


@linux
def test_a_file_in_the_making_is_not_swept(tmp_path: Path) -> None:
    target = tmp_path / "target.bin"
    with new_file(target) as first:
        fill(first, "first")
        with new_file(target) as second:
            fill(second, "second")
        assert target.read_text() == "second"
    assert target.read_text() == "first" and litter(tmp_path) == []


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_appears_meanwhile_is_replaced_only_where_that_was_asked_for(
    tmp_path: Path, request: pytest.FixtureRequest, exchanges: bool
) -> None:
    if not exchanges:
        request.getfixturevalue("no_exchange")
    target = tmp_path / "target"
    with pytest.raises(AmpnetError, match="exists"):
        with new_directory(target, replace=False) as temporary:
            fill(temporary, "new")
            target.mkdir()
            fill(target, "another's")
    assert tree(tmp_path) == {"target": "", "target/inner": "another's"}
    with pytest.raises(MisuseError, match="--force"):
        with new_directory(target, replace=False):
            pytest.fail("the work was begun all the same")
    with new_directory(target) as temporary:
        fill(temporary, "new")
    assert tree(tmp_path) == {"target": "", "target/inner": "new"}


@pytest.mark.usefixtures("no_exchange")
def test_a_kill_between_the_two_renames_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, real = tmp_path / "target", os.replace
    with new_directory(target) as temporary:
        fill(temporary, "old")

    def last(source: Path, place: Path) -> None:
        real(source, place)
        os._exit(9)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(files.os, "replace", last)
        with new_directory(target) as temporary:
            fill(temporary, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not target.exists()
    with pytest.raises(MisuseError, match="--force"):
        with new_directory(target, replace=False):
            pytest.fail("the work was begun all the same")
    assert tree(tmp_path) == {"target": "", "target/inner": "old"}


@BOTH
def test_the_umask_of_the_process_is_never_touched(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would create files with this mask"))
    with make(tmp_path / "target") as temporary:
        fill(temporary, "x")


def test_what_was_hidden_by_a_killed_build_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hidden = files._temporary(Path("engines") / "cpu-int8", files.NEW)
    for folder in (Path("engines") / "cpu-fp32", hidden):
        folder.mkdir(parents=True)
        (folder / "engine.json").write_text("{}")
    assert subjects_of([])[1] == [Path("engines") / "cpu-fp32"]


KILLED_AT_RANDOM = """
import os, random, signal, sys, time
from pathlib import Path
from ampnet_opt.core import exchange
from ampnet_opt.core.files import new_directory

target, points = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "aside":
    exchange.EXCHANGE = exchange.NOREPLACE = 1 << 20  # which no kernel knows
chance = random.Random(0)


def write(generation):
    with new_directory(target) as temporary:
        for number in range(4):
            (temporary / str(number)).write_text(f"{generation} " * 2000)


def whole(folder):
    texts = {path.read_text() for path in folder.iterdir()}
    assert len(texts) == 1 and len(list(folder.iterdir())) == 4, texts
    return int(texts.pop().split()[0])


write(0)
began = time.monotonic()
write(0)
seconds, left = time.monotonic() - began, 0
for point in range(points):
    before = whole(target)
    child = os.fork()
    if child == 0:
        generation = before
        while True:
            generation += 1
            write(generation)
    time.sleep(chance.uniform(0, 3 * seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if target.exists() or sys.argv[3] == "exchange":
        assert whole(target) >= before
        assert list(target.parent.glob("[!.]*")) == [target]
    left += any(target.parent.glob(".*"))
    if point % 3 == 0 or not target.exists():  # else the next one meets what several have left
        write(before + 1000)
        assert list(target.parent.iterdir()) == [target]
print(left)
"""


@linux
@pytest.mark.parametrize("way", ["exchange", "aside"])
def test_whoever_is_killed_at_any_moment_leaves_the_old_or_the_new_whole(tmp_path: Path, way: str) -> None:
    command = [sys.executable, "-c", KILLED_AT_RANDOM, str(tmp_path / "target"), "30", way]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 3  # it was met at work


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200), st.integers(0, 4))
def test_a_cache_keeps_the_newest_files_that_fit(sizes: list[int], most: int, kept: int) -> None:
    """sizes: of files, the newest first."""
    with tempfile.TemporaryDirectory() as folder:
        for age, size in enumerate(sizes):
            file = Path(folder) / f"{age}.blob"
            file.write_bytes(bytes(size))
            os.utime(file, (1000 - age, 1000 - age))
        forget_oldest(Path(folder), "*.blob", most, kept)
        left = sorted(int(file.stem) for file in Path(folder).iterdir())
    fitting = next((count for count in range(len(sizes), 0, -1) if sum(sizes[:count]) <= most), 0)
    assert left == list(range(min(len(sizes), max(kept, fitting))))
