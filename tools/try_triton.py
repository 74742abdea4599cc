"""Starts a real Triton on what `ampnet-opt serve-files` writes, and compares its answers with the pipeline's.

    python3.11 -m venv /tmp/triton && . /tmp/triton/bin/activate
    pip install nvidia-pytriton 'tritonclient[http]' '.[cpu,detect]'
    python tools/try_triton.py engines/cpu-int8 [PICTURES...] [--measure]

The wheel of nvidia-pytriton holds tritonserver with the Python backend, which starts without a GPU; so the model that takes
pictures is tried, and not those of the other backends. It needs the Python of the system (libpython3.11.so on Debian 12) and
numpy below 2. Without the wheel this says so and ends well.

--measure adds times: of the pipeline in this process, one picture after the other, then of Triton with 1, 8 and 32 clients.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.detection.detector import load_detector
from ampnet_opt.pipeline.pipeline import Pipeline
from ampnet_opt.runtime import Engine
from ampnet_opt.serving.model_config import FACES, PICTURE
from ampnet_opt.serving.repository import write_repository
from ampnet_opt.serving.triton_model import faces_of
from ampnet_opt.shipped import GOLDEN_FACES

CLIENTS = (1, 8, 32)
READY = 120.0  # seconds that the server gets to load the model
ROUNDS, SECONDS = 4, 6.0  # of a measurement: turns, and how long each subject has in a turn


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("engine", type=Path)
    words.add_argument("pictures", type=Path, nargs="*", help="default: the package's drawn faces, alone and as a group")
    words.add_argument("--measure", action="store_true")
    given = words.parse_args()
    missing = [name for name in ("pytriton", "tritonclient") if find_spec(name) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} is not installed in {sys.prefix}; see the top of this file")
        return
    pictures = [file.read_bytes() for file in given.pictures] or drawn()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        (model,) = write_repository([given.engine], Path(folder) / "repository")
        client = stack.enter_context(server(Path(folder), model.pictures))
        engine = stack.enter_context(Engine.load(given.engine))
        pipeline = Pipeline(engine, load_detector())
        faces = sum(compare(client, model.pictures, pipeline, engine.classes, picture) for picture in pictures)
        version = client.get_server_metadata()["version"]
        print(f"{model.pictures} in Triton {version}: {faces} faces in {len(pictures)} pictures, equal to the pipeline's")
        refuse(client, model.pictures)
        if given.measure:
            measure(client.url, model.pictures, pipeline, engine.classes, pictures)


def drawn() -> list[bytes]:
    """The package's drawn faces as JPEG files, and two encoded here: a group of four, and a picture without a face."""
    files = sorted((GOLDEN_FACES / "images").glob("*.jpg"))
    group, empty = Image.new("RGB", (900, 700), (90, 110, 100)), Image.new("RGB", (640, 480), (40, 60, 80))
    for place, file in zip(((40, 30), (520, 60), (90, 400), (560, 420)), files):
        group.paste(Image.open(file), place)
    return [*(file.read_bytes() for file in files), encoded(group), encoded(empty)]


def encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()


@contextmanager
def server(folder: Path, name: str) -> Iterator[Any]:
    """A Triton on this machine alone that serves the model `name` of `folder`/repository; gives a client of it."""
    import tritonclient.http as triton

    origin = Path(find_spec("pytriton").origin).parent / "tritonserver"  # type: ignore[union-attr, arg-type]
    backends = folder / "backends"
    shutil.copytree(origin / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = backends / "python" / "triton_python_backend_stub"
    shutil.copy(origin / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    libraries = origin.parents[1] / "nvidia_pytriton.libs"
    # The backend's interpreter takes the packages of the python3 that it finds first.
    first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PATH": first}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model-repository": folder / "repository",
        "model-control-mode": "explicit",
        "load-model": name,
        "backend-directory": backends,
        "http-address": "127.0.0.1",
        "http-port": port,
        "allow-grpc": "false",
        "allow-metrics": "false",
    }
    program = folder / "tritonserver"
    shutil.copy(origin / "bin" / "tritonserver", program)
    program.chmod(0o755)
    with open(folder / "log", "w+b") as log:
        words = [str(program), *(f"--{option}={value}" for option, value in options.items())]
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            # Open connections are closed first: the server waits for them before it ends.
            with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
                client.url = f"127.0.0.1:{port}"
                wait(process, client, name, folder / "log")
                yield client
        finally:
            process.terminate()
            process.wait(60)


def wait(process: subprocess.Popen[bytes], client: Any, name: str, log: Path) -> None:
    """Until the model is ready. Ends the program with the server's last lines when it does not come up."""
    end = time.monotonic() + READY
    while process.poll() is None and time.monotonic() < end:
        try:
            if client.is_model_ready(name):
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"tritonserver did not load {name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]))


def ask(client: Any, name: str, picture: bytes) -> dict[str, np.ndarray]:
    import tritonclient.http as triton

    sent = triton.InferInput(PICTURE, [1], "BYTES")
    sent.set_data_from_numpy(np.array([picture], np.object_))
    answer = client.infer(name, [sent])
    return {output: answer.as_numpy(output) for output in FACES}


def compare(client: Any, name: str, pipeline: Pipeline, classes: list[str], picture: bytes) -> int:
    """The number of faces, all of them equal in both, bit for bit. Ends the program when they are not."""
    served, own = ask(client, name, picture), faces_of(pipeline, picture, classes)
    for output in FACES:
        if served[output].shape != own[output].shape or not (served[output] == own[output]).all():
            sys.exit(f"{output} of Triton is not that of the pipeline:\n{served[output]}\n{own[output]}")
    return len(own["labels"])


def refuse(client: Any, name: str) -> None:
    """A picture that is none gets the sentence that `run` says, and the server goes on."""
    from tritonclient.utils import InferenceServerException

    try:
        faces_of(None, b"no picture", [])  # type: ignore[arg-type]  # it is refused before a pipeline is needed
    except AmpnetError as error:
        expected = str(error)
    try:
        ask(client, name, b"no picture")
        sys.exit("Triton answered what is no picture")
    except InferenceServerException as error:
        if expected not in str(error):
            sys.exit(f"Triton says {error}, not {expected}")
    print(f"what is no picture is refused: {expected}")


def measure(url: str, name: str, pipeline: Pipeline, classes: list[str], pictures: list[bytes]) -> None:
    """Print p50 and p99 of the seconds of a picture, and pictures a second, of subjects that take turns."""
    import tritonclient.http as triton

    def own() -> list[float]:
        return timed(lambda picture: faces_of(pipeline, picture, classes), pictures)

    def served(number: int) -> list[float]:
        first = number % len(pictures)  # each client begins elsewhere, so that all pictures are asked for as often
        with triton.InferenceServerClient(url) as client:
            return timed(lambda picture: ask(client, name, picture), pictures[first:] + pictures[:first])

    subjects = ["the pipeline alone", *(f"Triton, {clients} at a time" for clients in CLIENTS)]
    seconds: dict[str, list[float]] = {subject: [] for subject in subjects}
    taken = dict.fromkeys(subjects, 0.0)
    own()  # once before it counts
    for _ in range(ROUNDS):
        for subject, clients in zip(subjects, (0, *CLIENTS)):
            start = time.perf_counter()
            if clients:
                with ThreadPoolExecutor(clients) as pool:
                    seconds[subject] += [one for each in pool.map(served, range(clients)) for one in each]
            else:
                seconds[subject] += own()
            taken[subject] += time.perf_counter() - start
    for subject, every in seconds.items():
        p50, p99 = np.percentile(np.array(every) * 1e3, [50, 99])
        rate = len(every) / taken[subject]
        print(f"{subject}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {rate:.1f} pictures a second, {len(every)} pictures")


def timed(work: Any, pictures: list[bytes]) -> list[float]:
    """Seconds of each call, one picture after the other, for `SECONDS`."""
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        work(pictures[len(taken) % len(pictures)])
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    try:
        main()
    except AmpnetError as error:
        sys.exit(f"error: {error}")
