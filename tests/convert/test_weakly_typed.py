from __future__ import annotations

import operator
import re
import signal
import threading
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from ampnet_opt.convert.export import export
from ampnet_opt.convert.graph import GraphIndex, constants_to_initializers
from ampnet_opt.convert.placement import place
from ampnet_opt.convert.quantize import quantize, quantize_weight
from ampnet_opt.convert.weakly_typed import float_weights
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.labels import PRESETS
from ampnet_opt.network.checkpoint import init_checkpoint, read_checkpoint
from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
from ampnet_opt.runtime.sidecar import BatchRange
from ampnet_opt.runtime.tensorrt import compile as plans
from ampnet_opt.runtime.tensorrt.build_progress import Watch
from ampnet_opt.runtime.tensorrt.builder import network_flags
from ampnet_opt.runtime.tensorrt.compile import build_plan, needs_typed_graph
from ampnet_opt.runtime.tensorrt.plan import new_logger

BATCH = CompileOptions(BatchRange(1, 2, 8))

# What the code uses, or asks for, of the library: class -> attributes.
ATTRIBUTES = {
    "": ["ILogger", "__version__"],
    "ILogger.Severity": ["INTERNAL_ERROR", "ERROR", "WARNING"],
    "ILogger.Severity.VERBOSE": ["name"],
    "Builder": [
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
        "build_serialized_network",
        "num_DLA_cores",
    ],
    "BuilderFlag": ["TF32", "VERSION_COMPATIBLE", "GPU_FALLBACK"],
    "MemoryPoolType": ["WORKSPACE"],
    "HardwareCompatibilityLevel": ["AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"],
    "DeviceType": ["DLA"],
    "ProfilingVerbosity": ["DETAILED"],
    "ITimingCache": ["combine", "serialize"],
    "IBuilderConfig": [
        "clear_flag",
        "set_flag",
        "add_optimization_profile",
        "num_compute_capabilities",
        "set_compute_capability",
        "progress_monitor",
        "profiling_verbosity",
        "builder_optimization_level",
        "hardware_compatibility_level",
        "default_device_type",
        "DLA_core",
        "set_memory_pool_limit",
        "get_memory_pool_limit",
        "create_timing_cache",
        "set_timing_cache",
    ],
    "ComputeCapability": ["__members__"],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
    "INetworkDefinition": ["get_input", "num_inputs", "get_layer", "num_layers"],
    "ILayer": ["get_input", "num_inputs", "get_output", "num_outputs"],
    "ITensor": ["dtype", "name", "shape"],
    "OnnxParser": ["parse", "num_errors", "get_error"],
    "ParserError": ["desc", "node", "node_name"],
    "IOptimizationProfile": ["set_shape"],
    "IProgressMonitor": ["phase_start", "step_complete", "phase_finish"],
    "DataType": ["FLOAT", "UINT8"],
    "Runtime": ["deserialize_cuda_engine", "get_engine_validity"],
    "EngineValidity": ["INVALID"],
    "EngineInvalidityDiagnostics": ["__members__"],
    "ICudaEngine": ["num_io_tensors", "get_tensor_name", "get_tensor_dtype", "get_tensor_shape", "create_execution_context"],
    "IExecutionContext": ["set_tensor_address", "set_input_shape", "execute_async_v3"],
}


@pytest.fixture(scope="module")
def camera_graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A narrow network with a uint8 input; float32, its constants as initializers."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    init_checkpoint(path, seed=3, width=0.125, classes=PRESETS["ferplus"])
    graph = export(read_checkpoint(path), "uint8")
    constants_to_initializers(graph.graph)
    return graph


@pytest.fixture(scope="module")
def quantized_graph(camera_graph: onnx.ModelProto) -> onnx.ModelProto:
    placement = place(camera_graph)
    return quantize(camera_graph, placement, {tensor: 0.05 for tensor in placement.tensors})


def logits(graph: onnx.ModelProto) -> np.ndarray:
    """Of three made-up faces, without optimisations, which could hide or make differences."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (3, 224, 224, 3), np.uint8)
    return session.run(None, {"image": images, "landmarks": rng.uniform(0, 224, (3, 5, 2)).astype(np.float32)})[0]


def test_installed_library_has_what_the_code_asks_for() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    missing = [
        f"{owner}.{name}"
        for owner, names in ATTRIBUTES.items()
        for name in names
        if not hasattr(operator.attrgetter(owner)(trt) if owner else trt, name)
    ]
    assert not missing


def test_fp32_plan_is_built_in_silence_without_a_gpu(
    camera_graph: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    seen: list[float] = []
    plan = build_plan("tensorrt-rtx", camera_graph.SerializeToString(), "fp32", BATCH, seen.append)
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in camera_graph.graph.initializer)
    assert len(plan.data) > weights
    assert plan.version == trt.__version__
    assert {"8.6", "8.9", "12.0"} <= set(plan.target["compute_capabilities"])
    assert "7.5" not in plan.target["compute_capabilities"]
    assert seen == sorted(seen) and len(seen) > 10 and 0 < seen[0] < 0.5 and seen[-1] == 1
    assert capfd.readouterr() == ("", "")


def test_int8_plan_is_built(quantized_graph: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    plan = build_plan(
        "tensorrt-rtx", quantized_graph.SerializeToString(), "int8", replace(BATCH, compute_capabilities=["8.9"])
    )
    assert plan.data
    assert plan.target == {"compute_capabilities": ["8.9"]}


def test_gpu_the_library_does_not_know_is_misuse(camera_graph: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(MisuseError, match=r"does not build for compute capability 3\.5; it does for .*8\.6"):
        build_plan(
            "tensorrt-rtx", camera_graph.SerializeToString(), "fp32", replace(BATCH, compute_capabilities=["8.6", "3.5"])
        )


def test_profile_holds_the_batches_asked_for(camera_graph: onnx.ModelProto) -> None:
    _, network, _ = parsed(camera_graph)
    (profile,) = plans.shapes_over_batches("tensorrt-rtx", BATCH.batch, network)
    assert [*profile["image"]] == [(n, 224, 224, 3) for n in (1, 2, 8)]
    assert [*profile["landmarks"]] == [(n, 5, 2) for n in (1, 2, 8)]
    several = plans.shapes_over_batches("tensorrt", BATCH.batch, network)
    assert [[shape[0] for shape in one["landmarks"]] for one in several] == [[1, 2, 2], [3, 8, 8]]


def parsed(graph: onnx.ModelProto) -> tuple:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = new_logger(trt)
    builder = trt.Builder(logger.native)
    network = builder.create_network(network_flags(trt, BuilderOptions()))
    parser = trt.OnnxParser(network, logger.native)
    assert parser.parse(graph.SerializeToString())
    return builder, network, (trt, logger, parser)


def test_layers_pinned_to_float32_are_those_of_landmarks_alone(camera_graph: onnx.ModelProto) -> None:
    _, network, (trt, *_) = parsed(camera_graph)
    layers = plans._landmark_layers(trt, network)
    assert trt.LayerType.CONSTANT not in {layer.type for layer in layers}
    pinned = {layer.name for layer in layers}
    reached: dict[str, set[str]] = {"image": {"image"}, "landmarks": {"landmarks"}}
    expected: set[str] = set()
    for node in camera_graph.graph.node:
        sources = {source for source, tensors in reached.items() if tensors & set(node.input)}
        for source in sources:
            reached[source].update(node.output)
        if sources == {"landmarks"}:
            expected.add(node.name)
    kinds = {node.name: node.op_type for node in camera_graph.graph.node}
    assert {"Round", "Floor", "Abs"} <= {kinds[name] for name in pinned & set(kinds)}
    # The parser adds layers of its own (shuffles of constants' shapes), but pins nothing that touches the image.
    assert not {name for name in pinned & set(kinds) if name not in expected}
    floats = {name for name in expected if kinds[name] in {"Mul", "Add", "Sub", "Round", "Floor", "Abs", "Min"}}
    assert floats <= pinned


def test_broken_graph_is_one_sentence_that_names_the_node(camera_graph: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    broken = onnx.ModelProto.FromString(camera_graph.SerializeToString())
    node = next(node for node in broken.graph.node if node.op_type == "Conv")
    node.op_type = "NoSuchOperator"
    with pytest.raises(AmpnetError, match=r"tensorrt-rtx cannot read the graph: .*NoSuchOperator") as caught:
        build_plan("tensorrt-rtx", broken.SerializeToString(), "fp32", BATCH)
    assert node.name in str(caught.value) and "\n" not in str(caught.value)


def test_graph_that_does_not_build_quotes_the_library(camera_graph: onnx.ModelProto) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    if not hasattr(trt.ComputeCapability, "SM75"):
        pytest.skip("this TensorRT-RTX does not build for Turing, whose missing FP32 products this test relies on")
    with pytest.raises(AmpnetError, match=r"could not build the engine: .*Turing") as caught:
        build_plan("tensorrt-rtx", camera_graph.SerializeToString(), "fp32", replace(BATCH, compute_capabilities=["7.5"]))
    assert "\n" not in str(caught.value)


def test_what_progress_raises_stops_the_build(camera_graph: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    seen: list[float] = []

    def interrupt(part: float) -> None:
        seen.append(part)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan("tensorrt-rtx", camera_graph.SerializeToString(), "fp32", BATCH, interrupt)
    assert len(seen) == 3


def test_ctrl_c_stops_the_build_and_leaves_no_thread(camera_graph: onnx.ModelProto) -> None:
    pytest.importorskip("tensorrt_rtx")
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pytest.skip("something else handles SIGINT in this process")
    threads, seen = set(threading.enumerate()), []

    def press(part: float) -> None:
        seen.append(part)
        if len(seen) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            threading.Event().wait(0.5)  # leaves the main thread time to hear it

    with pytest.raises(KeyboardInterrupt):
        build_plan("tensorrt-rtx", camera_graph.SerializeToString(), "fp32", BATCH, press)
    for thread in set(threading.enumerate()) - threads:  # past the library, on its way out
        thread.join(1)
        assert not thread.is_alive()
    assert len(seen) == 1


def test_a_stopped_build_takes_no_further_step() -> None:
    def fail(part: float) -> None:
        raise RuntimeError

    watch = Watch(fail)
    watch.start("outer", 4)
    watch.start("inner", 2)
    assert not watch.step("inner", 0)
    assert isinstance(watch.error, RuntimeError)


def test_progress_counts_a_phase_as_one_step_of_the_phase_around_it() -> None:
    seen: list[float] = []
    watch = Watch(seen.append)
    watch.start("outer", 4)
    watch.start("inner", 2)
    assert watch.step("inner", 0)
    watch.step("inner", 1)
    watch.finish("inner")
    watch.step("outer", 0)
    watch.start("inner", 2)
    watch.step("inner", 0)
    assert seen == [1 / 8, 1 / 4, 3 / 8]


def test_missing_module_names_the_extra(camera_graph: onnx.ModelProto) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("tensorrt is installed here")
    with pytest.raises(AmpnetError, match=rf"{re.escape(install_command('tensorrt'))}.*--system-site-packages"):
        build_plan("tensorrt", camera_graph.SerializeToString(), "fp32", BATCH)


def test_rtx_wants_a_typed_graph() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert needs_typed_graph("tensorrt-rtx")


def test_float_weights_keep_every_bit(quantized_graph: onnx.ModelProto) -> None:
    changed = float_weights(quantized_graph)
    onnx.checker.check_model(changed, full_check=True)
    index = GraphIndex(changed.graph)
    stored = {t.name for t in changed.graph.initializer if t.data_type == TensorProto.INT8 and np.prod(t.dims) > 0}
    assert all(i == 2 for name in stored for _, i in index.consumers[name]), "an INT8 constant is not only a zero point"
    np.testing.assert_array_equal(logits(changed), logits(quantized_graph))


@settings(max_examples=30, deadline=None)
@given(
    weight=arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)),
    exponents=st.tuples(*[st.integers(-60, 20)] * 3),
    zero_point=st.booleans(),
)
def test_any_weight_survives_float_weights(weight: np.ndarray, exponents: tuple[int, ...], zero_point: bool) -> None:
    values, scale = quantize_weight(np.ldexp(weight, np.array(exponents)[:, None]))
    constants = [numpy_helper.from_array(a, n) for a, n in ((values, "w"), (scale, "s"), (np.zeros(3, np.int8), "z"))]
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"][: 2 + zero_point], ["y"], name="dq", axis=0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4])
    graph = helper.make_graph([node], "weight", [], [output], constants[: 2 + zero_point])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def run(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {})[0]

    np.testing.assert_array_equal(run(float_weights(model)), run(model))
