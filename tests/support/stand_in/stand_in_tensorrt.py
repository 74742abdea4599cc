"""Stands in for NVIDIA's modules tensorrt and tensorrt_rtx, on the driver of stand_in/cuda_driver.c: plans are ONNX graphs.

`install` makes a module of one version, with the names that tests/support/api records of it and no others. A plan holds the
graph, the profile, and which library and GPU it is for; ONNX Runtime computes it when the stream gets there. Only what
runtime/tensorrt calls is here. What the real library leaves undefined is a fault of the driver: `_fault`.

With STAND_IN_TENSORRT_ALLOCATES in the environment every run allocates, so that none can be recorded as a CUDA graph;
with STAND_IN_TENSORRT_FAILS the network fails on the GPU, once the stream gets there; STAND_IN_TENSORRT_WRONG names a node
that it computes wrongly. STAND_IN_TENSORRT_REFUSES names what does not work: "runtime", which does not start, or "profile",
which cannot be chosen. STAND_IN_TENSORRT_DLA is the number of DLA cores; a plan that comes to another core than its own is
a fault.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import sys
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from bfloat16 import has_bfloat16, in_float32

API = Path(__file__).parents[1] / "api"
MAGIC = b"stand-in plan\n"
FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
TYPES = {"FLOAT": "FLOAT", "FLOAT16": "HALF", "BFLOAT16": "BF16"}
TYPES.update((name, name) for name in ("UINT8", "INT8", "INT32", "BOOL"))


class Region(ctypes.Structure):
    _fields_ = [("address", ctypes.c_size_t), ("size", ctypes.c_size_t), ("writes", ctypes.c_int)]


# ---- the driver, as the library's C++ would call it ----

_driver = ctypes.CDLL("libcuda.so.1")
_driver.standInView.restype = ctypes.c_void_p
_numbering = threading.Lock()
_work: list[Any] = []  # what `_run` runs, by number; kept for CUDA graphs, which run it again


def _fault(text: str) -> None:
    _driver.standInFault(text.encode())


def _call(name: str, *arguments: Any) -> int:
    context = ctypes.c_void_p()
    _driver.cuCtxGetCurrent(ctypes.byref(context))
    if not context.value:  # CUDA's runtime library, through which TensorRT calls the driver, uses the primary context then
        _driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        _driver.cuCtxSetCurrent(context)
    return int(getattr(_driver, name)(*arguments))


def _cuda(name: str, *arguments: Any) -> None:
    code = _call(name, *arguments)
    if code:
        raise RuntimeError(f"Cuda Runtime ({name} gave {code})")


@FUNCTION
def _run(number: int | None) -> int:
    try:
        _work[number or 0]()
        return 0
    except Exception as error:
        print(f"stand-in tensorrt: {error!r}", file=sys.stderr)
        return 1


def _enqueue(stream: int, work: Any, regions: list[tuple[int, int, bool]]) -> None:
    with _numbering:
        number = len(_work)
        _work.append(work)
    there = (Region * len(regions))(*(Region(*region) for region in regions))
    _cuda("standInCall", ctypes.c_void_p(stream), _run, ctypes.c_void_p(number), there, len(regions))


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    place = _driver.standInView(ctypes.c_size_t(address), ctypes.c_size_t(size))
    return np.frombuffer((ctypes.c_uint8 * size).from_address(place), dtype).reshape(shape)


class _DeviceMemory:
    """GPU memory of the library's own, such as that of weights and activations."""

    def __init__(self, size: int) -> None:
        address = ctypes.c_size_t()
        _cuda("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self.address, self.size = address.value, size

    def free(self) -> None:
        _call("cuMemFree_v2", ctypes.c_size_t(self.address))


def _capability() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _cuda("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), 0)
    return f"{major.value}.{minor.value}"


def _named(names: Any) -> list[str]:
    """ "SM86" -> "8.6"."""
    return [f"{name[2:-1]}.{name[-1]}" for name in names]


def refuses(what: str) -> bool:
    return os.environ.get("STAND_IN_TENSORRT_REFUSES") == what


# ---- one version of the module ----


def install(name: str, version: str) -> None:
    """Fill the module `name` with the names that api/`version`.txt records; version: "tensorrt-10.3.0", say."""
    recorded = set((API / f"{version}.txt").read_text(encoding="utf-8").splitlines()[1:])
    module = sys.modules[name]
    module.__version__ = version.rpartition("-")[2]  # type: ignore[attr-defined]
    numbers = tuple(int(part) for part in version.rpartition("-")[2].split("."))
    if name == "tensorrt_rtx":
        numbers = (10, 13)  # the TensorRT that it comes from
    for made in _classes(module, recorded, numbers):
        if made.__name__ in recorded:
            setattr(module, made.__name__, _restricted(made, recorded))


def _restricted(made: Any, recorded: set[str]) -> Any:
    """The class without the attributes that this version lacks; others can then not be set either, as in the bindings."""
    if issubclass(made, enum.Enum):
        return made
    for attribute in [name for name in vars(made) if not name.startswith("_")]:
        if f"{made.__name__}.{attribute}" not in recorded and attribute != "Severity":
            delattr(made, attribute)
    if made.__name__ in ("ILogger", "IProfiler", "IProgressMonitor"):  # Python derives from these
        return made

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if not name.startswith("_") and f"{made.__name__}.{name}" not in recorded:
            raise AttributeError(f"{made.__name__} has no attribute {name}")
        object.__setattr__(self, name, value)

    made.__setattr__ = set_attribute
    return made


def _enumeration(name: str, recorded: set[str]) -> Any:
    members = sorted(entry.partition(".")[2] for entry in recorded if entry.startswith(f"{name}."))
    members = [member for member in members if member.isupper() and "." not in member]
    first = 1 if name == "EngineInvalidityDiagnostics" else 0
    return enum.IntEnum(name, {member: 1 << i if first else i for i, member in enumerate(members)})


ENUMERATIONS = (
    "BuilderFlag",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DataType",
    "DeviceType",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "TensorIOMode",
)


def _classes(trt: Any, recorded: set[str], version: tuple[int, ...]) -> list[Any]:
    enumerations = [_enumeration(name, recorded) for name in ENUMERATIONS]
    of = {made.__name__: made for made in enumerations}
    data_type, flags, creation = of["DataType"], of["BuilderFlag"], of["NetworkDefinitionCreationFlag"]
    weakly_typed, ahead = hasattr(flags, "FP16"), bool(len(of["ComputeCapability"]))

    def type_of(elem: int) -> Any:
        name = onnx.TensorProto.DataType.Name(elem) if elem else "FLOAT"
        wide = "INT64" if hasattr(data_type, "INT64") else "INT32"
        return getattr(data_type, wide if name == "INT64" else TYPES[name])

    class ILogger:
        class Severity(enum.IntEnum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def log(self, severity: Any, message: str) -> None:
            raise NotImplementedError

    class IProfiler:
        pass

    class IProgressMonitor:
        pass

    class IHostMemory:
        def __init__(self, data: bytes) -> None:
            self._data = data

        @property
        def nbytes(self) -> int:
            return len(self._data)

        def __bytes__(self) -> bytes:
            return self._data

    class ITensor:
        def __init__(self, name: str, elem: int, shape: tuple[int, ...]) -> None:
            self.name, self.dtype, self.shape = name, type_of(elem), shape

    class ILayer:
        precision: Any = None

        def __init__(self, node: Any, tensors: dict[str, Any]) -> None:
            self.name = node.name
            self._inputs = [tensors.get(name) for name in node.input]
            self._outputs = [tensors[name] for name in node.output if name]

        @property
        def num_inputs(self) -> int:
            return len(self._inputs)

        @property
        def num_outputs(self) -> int:
            return len(self._outputs)

        def get_input(self, i: int) -> Any:
            return self._inputs[i]

        def get_output(self, i: int) -> Any:
            return self._outputs[i]

        def set_output_type(self, i: int, dtype: Any) -> None:
            assert self._outputs[i].dtype == dtype, "the output type of a layer is changed"

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._typed = hasattr(creation, "STRONGLY_TYPED") and bool(flags >> creation.STRONGLY_TYPED & 1)
            self._graph: Any = None
            self._inputs: list[Any] = []
            self._layers: list[Any] = []

        @property
        def num_inputs(self) -> int:
            return len(self._inputs)

        @property
        def num_layers(self) -> int:
            return len(self._layers)

        def get_input(self, i: int) -> Any:
            return self._inputs[i]

        def get_layer(self, i: int) -> Any:
            return self._layers[i]

        def _parse(self, model: Any) -> None:
            graph = onnx.shape_inference.infer_shapes(model).graph
            tensors = {value.name: ITensor(value.name, value.data_type, tuple(value.dims)) for value in graph.initializer}
            for value in [*graph.input, *graph.value_info, *graph.output]:
                kind = value.type.tensor_type
                shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
                tensors[value.name] = ITensor(value.name, kind.elem_type, shape)
            for node in graph.node:
                for name in node.output:
                    tensors.setdefault(name, ITensor(name, 0, ()))
            self._inputs = [tensors[value.name] for value in graph.input]
            self._layers = [ILayer(node, tensors) for node in graph.node]
            self._graph = model

    class ParserError:
        def __init__(self, text: str) -> None:
            self._text = text

        def desc(self) -> str:
            return self._text

        def node(self) -> int:
            return 0

        def node_name(self) -> str:
            return "the graph"

        def node_operator(self) -> str:
            return "ModelProto"

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self._network = network
            self._errors: list[str] = []

        def parse(self, data: bytes) -> bool:
            try:
                model = onnx.load_from_string(data)
                onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))  # outputs need no shape
                _session(data)
                self._network._parse(model)
            except Exception as error:
                self._errors.append(str(error))
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, i: int) -> Any:
            return ParserError(self._errors[i])

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            if not all(low <= middle <= high for low, middle, high in zip(min, opt, max, strict=True)):
                raise ValueError("Shape provided is inconsistent with other shapes in the profile")
            self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]

    class ITimingCache:
        def __init__(self, times: dict[str, float]) -> None:
            self._times = times

        def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
            self._times.update(input_cache._times)
            return True

        def serialize(self) -> Any:
            return IHostMemory(b"timing " + json.dumps([trt.__version__, self._times]).encode())

    class IBuilderConfig:
        def __init__(self, logger: Any) -> None:
            self._logger, self._profiles = logger, []
            self._flags = {flags.TF32}
            self._cache: Any = None
            self._pools = {pool: 8 << 30 for pool in of["MemoryPoolType"]}
            self._shares_profile = False

        profiling_verbosity = of["ProfilingVerbosity"].LAYER_NAMES_ONLY
        builder_optimization_level = 3
        hardware_compatibility_level: Any = None
        progress_monitor: Any = None
        default_device_type = of["DeviceType"].GPU
        DLA_core = -1
        num_compute_capabilities = 1

        def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
            self._capabilities = {**getattr(self, "_capabilities", {}), index: compute_capability.name}
            return index < self.num_compute_capabilities

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flags(flag))

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flags(flag))

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            if feature.name == "PROFILE_SHARING_0806":
                self._shares_profile = enable

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            if size <= 8 << 30:
                self._pools[pool] = size

        def get_memory_pool_limit(self, pool: Any) -> int:
            return self._pools[pool]

        def create_timing_cache(self, data: bytes) -> Any:
            try:
                version, times = json.loads(data[len(b"timing ") :]) if data else [trt.__version__, {}]
                if version != trt.__version__:
                    raise ValueError("it is of another version")
            except ValueError as error:
                self._logger.log(ILogger.Severity.WARNING, f"the timing cache is not used: {error}")
                times = {}
            return ITimingCache(times)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return True

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

    class Builder:
        platform_has_fast_fp16 = True
        platform_has_fast_int8 = True
        num_DLA_cores = int(os.environ.get("STAND_IN_TENSORRT_DLA", "0"))

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_builder_config(self) -> Any:
            return IBuilderConfig(self._logger)

        def create_network(self, flags: int = 0) -> Any:
            explicit = not hasattr(creation, "EXPLICIT_BATCH") or version >= (10,) or flags >> creation.EXPLICIT_BATCH & 1
            return INetworkDefinition(flags) if explicit else None

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            try:
                return self._build(network, config)
            except ValueError as error:
                self._logger.log(ILogger.Severity.ERROR, str(error))
                return None

        def _build(self, network: Any, config: Any) -> Any:
            chosen = {flag.name for flag in config._flags}
            if network._typed and chosen & {"FP16", "INT8", "BF16"}:
                raise ValueError("precision flags are set for a strongly typed network")
            if not config._profiles or set(config._profiles[0]._shapes) != {tensor.name for tensor in network._inputs}:
                raise ValueError("network has dynamic inputs, but no optimization profile has been defined")
            quantised = any(node.op_type == "QuantizeLinear" for node in network._graph.graph.node)
            if weakly_typed and not network._typed and quantised and "INT8" not in chosen:
                raise ValueError("the network has Q/DQ nodes, but INT8 is not allowed")
            monitor = config.progress_monitor if hasattr(config, "progress_monitor") else None
            if monitor is not None:
                monitor.phase_start("Building Engine", None, len(network._layers))
            scratch = None if ahead else _DeviceMemory(1 << 10)  # kernels are timed on the GPU
            try:
                for i, layer in enumerate(network._layers):
                    if not ahead:
                        config._cache._times[layer.name] = 1e-3
                    if monitor is not None and not monitor.step_complete("Building Engine", i):
                        return None
            finally:
                if scratch is not None:
                    scratch.free()
                if monitor is not None:
                    monitor.phase_finish("Building Engine")
            about = {
                "version": trt.__version__,
                "capabilities": _named(config._capabilities.values()) if ahead else [_capability()],
                "compatible": "VERSION_COMPATIBLE" in chosen,
                "ampere": getattr(config.__dict__.get("hardware_compatibility_level"), "name", "") == "AMPERE_PLUS",
                "shared": version >= (10,) or config._shares_profile,
                "profiles": [profile._shapes for profile in config._profiles],
                "detailed": config.profiling_verbosity.name == "DETAILED",
                "half": "FP16" in chosen,
                "tf32": "TF32" in chosen,
                "dla_core": config.DLA_core,
            }
            graph = _wrong(network._graph).SerializeToString()
            return IHostMemory(MAGIC + json.dumps(about).encode() + b"\n" + graph)

    class EngineInspector:
        execution_context: Any = None

        def __init__(self, engine: Any) -> None:
            self._engine = engine

        def get_engine_information(self, format: Any) -> str:
            about, graph = self._engine._about, self._engine._graph
            nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
            if not about["detailed"]:
                return json.dumps({"Layers": [node.name for node in nodes]})
            layers = [_listed(node, graph, about, version >= (8, 6)) for node in nodes]
            for i in range(1, len(about["profiles"])):
                layers += [{**layer, "Name": f"{layer['Name']} [profile {i}]"} for layer in layers[: len(nodes)]]
            return json.dumps({"Layers": layers})

    class IExecutionContext:
        """Keeps its engine alive, as in the bindings."""

        def __init__(self, engine: Any, profile: int, config: Any) -> None:
            self._engine, self._profile, self._config, self.profiler = engine, profile, config, None
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            self._found: dict[Any, dict[str, tuple[int, ...]]] = {}  # shapes of inputs -> of outputs
            self._planned = False  # whether the shapes have been run with once, which allocates
            self._memory = _DeviceMemory(1 << 12)

        @property
        def active_optimization_profile(self) -> int:
            return self._profile

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            engine = self._engine
            if not engine._about["shared"] and profile_index in engine._in_use:
                engine._log("IExecutionContext::setOptimizationProfileAsync: another context uses the profile")
                raise RuntimeError("Error in set optimization profile async.")
            if refuses("profile"):
                engine._log("IExecutionContext::setOptimizationProfileAsync: as it was asked to")
                raise RuntimeError("Error in set optimization profile async.")
            engine._in_use.discard(self._profile)
            engine._in_use.add(profile_index)
            self._profile, self._planned = profile_index, False
            self._shapes.clear()  # all are to be set again
            self._addresses.clear()
            return True

        def set_input_shape(self, name: str, shape: Any) -> bool:
            if self._profile < 0:
                self._engine._log("IExecutionContext::setInputShape: no profile has been selected")
                return False
            low, _, high = self._engine._about["profiles"][self._profile][name]
            inside = len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
            if not inside:
                why = f"{list(shape)} is outside of {low} to {high}"
                self._engine._log(f"IExecutionContext::setInputShape: {name}: {why}")
                return False
            self._planned = self._planned and self._shapes.get(name) == tuple(shape)
            self._shapes[name] = tuple(shape)
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            """Of an output, that which the graph gives for the inputs' shapes; a free side is -1 before those are set."""
            engine, rows = self._engine, [shape[0] for shape in self._shapes.values()]
            known = (*rows[:1], *engine._shapes[name][1:])
            if name in self._shapes or not rows:
                return self._shapes.get(name, engine._shapes[name])
            if engine._shapes[name] and -1 not in known:
                return known
            key = tuple(self._shapes.items())
            if key not in self._found:
                feeds = {name: np.zeros(shape, engine._dtypes[name]) for name, shape in key}
                self._found[key] = {
                    name: values.shape
                    for name, values in zip(engine._outputs, engine._session.run(None, feeds), strict=True)
                }
            return self._found[key][name]

        def set_tensor_address(self, name: str, address: int) -> bool:
            if address % 256:
                _fault("a tensor's address is not aligned to 256 bytes")
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            engine = self._engine
            names = [name for name in engine._names if name not in self._addresses]
            if names or len(self._shapes) < len(engine._names) - len(engine._outputs):
                engine._log(f"IExecutionContext::enqueueV3: shapes or addresses are missing ({', '.join(names)})")
                return False
            try:
                if not self._planned or "STAND_IN_TENSORRT_ALLOCATES" in os.environ:
                    _DeviceMemory(1 << 12).free()
                    self._planned = True
                self._enqueue(stream_handle)
            except RuntimeError as error:
                engine._log(str(error))
                return False
            if self.profiler is not None:
                _cuda("cuStreamSynchronize", ctypes.c_void_p(stream_handle))
                for node in engine._graph.node:
                    self.profiler.report_layer_time(node.name, 1e-3)
            return True

        def _enqueue(self, stream: int) -> None:
            engine, addresses = self._engine, dict(self._addresses)
            inputs, rows = dict(self._shapes), next(iter(self._shapes.values()))[0]
            outputs = {name: self.get_tensor_shape(name) for name in engine._outputs}
            shapes = {**inputs, **outputs}
            self._compile(rows)
            session, dtypes = engine._session, engine._dtypes  # the work, which is kept, must not keep the engine alive

            def compute() -> None:
                if "STAND_IN_TENSORRT_FAILS" in os.environ:
                    raise RuntimeError("as it was asked to")
                feeds = {name: _array(addresses[name], inputs[name], dtypes[name]) for name in inputs}
                for name, values in zip(outputs, session.run([*outputs], feeds), strict=True):
                    _array(addresses[name], outputs[name], dtypes[name])[:] = values

            weights, scratch = engine._weights, self._memory
            regions = [(scratch.address, scratch.size, True), (weights.address, weights.size, False)]
            for name, shape in shapes.items():
                size = int(np.prod(shape)) * np.dtype(dtypes[name]).itemsize
                regions.append((addresses[name], size, name in outputs))
            _enqueue(stream, compute, regions)

        def _compile(self, rows: int) -> None:
            """What TensorRT for RTX does with a batch size that is new to the context's runtime cache."""
            cache = None if self._config is None else self._config._cache
            kernel = f"{sha256(self._engine._graph.SerializeToString()).hexdigest()[:16]} {rows}"
            if cache is not None and kernel not in cache._kernels:
                eager = self._config.dynamic_shapes_kernel_specialization_strategy
                assert eager is of["DynamicShapesKernelSpecializationStrategy"].EAGER
                compiled.append(rows)
                cache._kernels.append(kernel)

        def __del__(self) -> None:
            if hasattr(self, "_memory"):
                self._engine._in_use.discard(self._profile)
                self._memory.free()

    class IRuntimeCache:
        def __init__(self) -> None:
            self._kernels: list[str] = []

        def serialize(self) -> Any:
            return IHostMemory(b"kernels " + json.dumps([trt.__version__, _capability(), self._kernels]).encode())

        def deserialize(self, blob: Any) -> bool:
            found_version, capability, kernels = json.loads(bytes(blob).removeprefix(b"kernels "))
            fits = (found_version, capability) == (trt.__version__, _capability())
            self._kernels = kernels if fits else self._kernels
            return fits

    class IRuntimeConfig:
        cuda_graph_strategy: Any = None
        dynamic_shapes_kernel_specialization_strategy: Any = None
        _cache: Any = None

        def create_runtime_cache(self) -> Any:
            return IRuntimeCache()

        def set_runtime_cache(self, cache: Any = None) -> bool:
            self._cache = cache
            return True

    class ICudaEngine:
        def __init__(self, logger: Any, about: dict[str, Any], graph: bytes) -> None:
            self._about, self._logger = about, logger
            self._in_use: set[int] = set()  # profiles
            self._session, self._graph = _session(graph), onnx.load_from_string(graph).graph
            values = [*self._session.get_inputs(), *self._session.get_outputs()]
            self._names = [value.name for value in values]
            self._outputs = [value.name for value in self._session.get_outputs()]
            self._dtypes = {value.name: {"tensor(uint8)": np.uint8}.get(value.type, np.float32) for value in values}
            self._shapes = {value.name: tuple(x if isinstance(x, int) else -1 for x in value.shape) for value in values}
            self._weights = _DeviceMemory(len(graph))

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._about["profiles"])

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [tuple(shape) for shape in self._about["profiles"][profile_index][name]]

        def get_tensor_name(self, i: int) -> str:
            return self._names[i]

        def get_tensor_mode(self, name: str) -> Any:
            return of["TensorIOMode"].OUTPUT if name in self._outputs else of["TensorIOMode"].INPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return getattr(data_type, {"float32": "FLOAT", "uint8": "UINT8"}[np.dtype(self._dtypes[name]).name])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self._shapes[name]

        def create_runtime_config(self) -> Any:
            return IRuntimeConfig()

        def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
            profile = 0 if self._about["shared"] or not self._in_use else -1  # none, where the first is in use
            try:
                context = IExecutionContext(self, profile, runtime_config)
            except RuntimeError as error:
                self._log(f"ICudaEngine::createExecutionContext: {error}")
                return None
            self._in_use |= {profile} - {-1}
            return context

        def create_engine_inspector(self) -> Any:
            return EngineInspector(self)

        def _log(self, message: str) -> None:
            self._logger.log(ILogger.Severity.ERROR, message)

        def __del__(self) -> None:
            if hasattr(self, "_weights"):
                self._weights.free()

    class Runtime:
        engine_host_code_allowed = False
        num_DLA_cores = Builder.num_DLA_cores
        DLA_core = -1

        def __init__(self, logger: Any) -> None:
            if refuses("runtime"):
                logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 3")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def get_engine_validity(self, plan: Any) -> Any:
            validity, diagnostics = of["EngineValidity"], of["EngineInvalidityDiagnostics"]
            good = bytes(plan).startswith(MAGIC)
            return (validity.VALID, 0) if good else (validity.INVALID, int(diagnostics.MALFORMED_ENGINE))

        def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
            plan = bytes(serialized_engine)
            why = self._refused(plan)
            if why:
                self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: {why}")
                return None
            head, _, graph = plan[len(MAGIC) :].partition(b"\n")
            if json.loads(head)["dla_core"] != self.DLA_core:
                _fault(f"a plan for DLA core {json.loads(head)['dla_core']} runs on core {max(0, self.DLA_core)}")
            try:
                return ICudaEngine(self._logger, json.loads(head), graph)
            except RuntimeError as error:
                self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: {error}")
                return None

        def _refused(self, plan: bytes) -> str:
            if not plan.startswith(MAGIC):
                return "magic tag does not match"
            about = json.loads(plan[len(MAGIC) :].partition(b"\n")[0])
            if about["compatible"] and not self.engine_host_code_allowed:
                return "the plan has host code, which is not allowed"
            if about["version"] != trt.__version__ and not about["compatible"]:
                return f"version tag does not match: {about['version']} is not {trt.__version__}"
            here = _capability()
            if here not in about["capabilities"] and not (about["ampere"] and float(here) >= 8):
                return f"the plan is for compute capability {', '.join(about['capabilities'])}, this GPU has {here}"
            return ""

    made = [ILogger, IProfiler, IProgressMonitor, IHostMemory, ITensor, ILayer, INetworkDefinition, ParserError, OnnxParser]
    made += [IOptimizationProfile, ITimingCache, IBuilderConfig, Builder, EngineInspector, IExecutionContext]
    return [*enumerations, *made, IRuntimeCache, IRuntimeConfig, ICudaEngine, Runtime]


compiled: list[int] = []  # batch sizes that TensorRT for RTX compiled kernels for
_sessions = threading.Lock()


def _session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    model = onnx.load_from_string(graph)
    if has_bfloat16(model):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # a cast there and back stays
        graph = in_float32(model).SerializeToString()
    with _sessions:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _wrong(model: Any) -> Any:
    """`model`, with the result of the node that STAND_IN_TENSORRT_WRONG names a thousand times too large."""
    nodes = model.graph.node
    for i, node in enumerate(nodes):
        if node.name == os.environ.get("STAND_IN_TENSORRT_WRONG"):
            right, node.output[0] = node.output[0], f"{node.output[0]}_wrong"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1000), "thousand"))
            nodes.insert(i + 1, onnx.helper.make_node("Mul", [node.output[0], "thousand"], [right], name="wrong"))
            break
    return model


def _listed(node: Any, graph: Any, about: dict[str, Any], metadata: bool) -> dict[str, Any]:
    """A layer as the engine inspector has it: INT8 where its weights come from DequantizeLinear, else of their type."""
    producers = {name: other for other in graph.node for name in other.output}
    sizes = {value.name: int(np.prod(value.dims)) for value in graph.initializer}
    types = {value.name: value.data_type for value in graph.initializer}
    source = producers.get(node.input[1])
    while source is not None and source.op_type in ("Reshape", "Transpose", "Cast", "QuantizeLinear", "Mul"):
        source = producers.get(source.input[0])
    quantised = source is not None and source.op_type == "DequantizeLinear"
    half = about["half"] or types.get(node.input[1]) == onnx.TensorProto.FLOAT16
    brain = types.get(node.input[1]) == onnx.TensorProto.BFLOAT16
    kind = "Int8" if quantised else "Half" if half else "BFloat16" if brain else "Float"
    weights = source.input[0] if quantised else node.input[1]
    entry = {
        "Name": node.name,
        "LayerType": "CaskConvolution" if node.op_type == "Conv" else "CaskGemmMatrixMultiply",
        "Inputs": [{"Name": node.input[0], "Format/Datatype": f"Row major {kind if kind != 'Float' else 'FP32'} format"}],
        "Outputs": [{"Name": node.output[0], "Format/Datatype": "Row major FP32 format"}],
        "ParameterType": "Convolution" if node.op_type == "Conv" else "MatrixMultiply",
        "Weights": {"Type": kind, "Count": sizes.get(weights, 0)},
    }
    return {**entry, "Metadata": f"[ONNX Layer: {node.name}]"} if metadata else entry
