"""What a backend is: one object that says what it can do here, compiles graphs, opens engines and lists their layers.

`find_backend` finds them by name. docs/explanations/architecture.md shows how to add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import listed

if TYPE_CHECKING:
    import numpy as np

    from ampnet_opt.runtime.compile_options import BuilderOptions, CompileOptions
    from ampnet_opt.runtime.layers import Layer
    from ampnet_opt.runtime.network import Network
    from ampnet_opt.runtime.onnx_interface import FlexibleGraph
    from ampnet_opt.runtime.sidecar import Sidecar


Progress = Callable[[float], None]  # called with the share done, 0 to 1

# Forms of a graph: as it is; for OpenVINO with UINT8 where nothing is negative; for TensorRT whose own types say what is
# computed in FP16, or float32 with float weights, for versions that are told by flags; for TensorRT for RTX typed as well,
# with INT8 as its builder fuses it.
PLAIN, UNSIGNED, TYPED, WEAK, RTX = "plain", "unsigned", "typed", "weak", "rtx"
TYPED_FORMS = (TYPED, RTX)


@dataclass(frozen=True)
class Compiled:
    """What a backend wrote.

    Attributes:
        version: of its library.
        target: what the engine is for, as of `Sidecar`.
        files: their names.
        layers: what the library listed while it compiled; None where only the finished engine tells.
    """

    version: str
    target: Dict[str, Any]
    files: List[str]
    layers: Optional[List[Layer]] = None


@dataclass(frozen=True)
class LoadOptions:
    """How an engine is loaded; as of `Engine.load`."""

    threads: Optional[int] = None
    contexts: int = 1
    cuda_graph: bool = True
    blocking_wait: bool = False


@dataclass(frozen=True)
class Availability:
    """What a backend can do on this machine.

    Attributes:
        builds: whether it builds engines here. runs: whether it runs them.
        version: of its library, "" where that is missing.
        precisions: that this processor computes in; () where only a build tells.
        problem: why it does not build or run, and what to do, or "".
    """

    builds: bool
    runs: bool
    version: str = ""
    precisions: Tuple[str, ...] = ()
    problem: str = ""


class Executor(ABC):
    """A loaded engine of one backend, for any number of threads at once.

    Attributes:
        many: images of each batch of `run_many`; 0 where the backend works at one batch after the other.
        streams: parts that the cores are divided into for `run_on_stream`; 1 where that is `run`.
    """

    many: int = 0
    streams: int = 1

    @abstractmethod
    def run(self, images: Any, landmarks: Any) -> np.ndarray:
        """Logits float32 [N, classes] of inputs as the graph takes them, N within the engine's profile."""

    def run_on_stream(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """As `run`, on one of the parts of the cores; of more than `streams` threads, those that are more wait."""
        return self.run(images, landmarks)

    def run_many(self, batches: Iterable[Tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Logits of each batch of images and landmarks, in their order; all batches but the last are of one size."""
        return (self.run(images, landmarks) for images, landmarks in batches)

    @abstractmethod
    def close(self) -> None:
        """Free all; `Engine` sees to it that nothing runs then."""


class Backend(ABC):
    """A library that compiles graphs into engines and runs them. Making and importing one loads nothing of the library.

    Attributes:
        name: as in `--backend` and `engine.json`.
        device: "cpu" or "gpu", what it computes on.
        module: of Python, whose version an engine records.
        files: names without which an engine directory holds no engine.
        precisions: those that it can be asked for; what this machine has of them, `require_possible` says.
        portable: whether an engine runs on other machines than the one that built it.
        rank: among the backends that run on this machine the one of the highest rank is the default; 0, never.
    """

    name: str
    device: str
    module: str
    files: ClassVar[Tuple[str, ...]]
    precisions: Tuple[str, ...]
    portable: bool = True

    @property
    def rank(self) -> int:
        return 0

    @abstractmethod
    def availability(self) -> Availability:
        """What works on this machine, found out without building anything."""

    def require_options(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        """Raise what can be known before a checkpoint is even read.

        MisuseError for options and precisions that never go with this backend; AmpnetError for those that the installed
        library or this machine does not have.
        """
        self.require_precisions(precisions)
        flags = options.builder.flags()
        if flags:
            raise MisuseError(f"{', '.join(flags)}: for tensorrt and tensorrt-rtx, not for {self.name}")
        self.require_no_capabilities(options)

    def require_precisions(self, precisions: Sequence[str]) -> None:
        """MisuseError for a precision that this backend never computes in."""
        for precision in precisions:
            if precision not in self.precisions:
                raise MisuseError(f"{precision} is not for the backend {self.name}, which takes {listed(self.precisions)}")

    def require_no_capabilities(self, options: CompileOptions) -> None:
        if options.compute_capabilities:
            raise MisuseError("--compute-capability is for the backend tensorrt-rtx; others build for this machine")

    def require_possible(self, options: CompileOptions, precisions: Sequence[str]) -> None:
        """`require_options`, and AmpnetError when this machine cannot build: said before minutes of work."""
        self.require_options(options, precisions)

    @abstractmethod
    def graph_form(self, builder: Optional[BuilderOptions] = None) -> str:
        """The form of graph that this machine's library takes. Raises AmpnetError when it is missing."""

    @abstractmethod
    def compile(
        self, directory: Path, graph: bytes, precision: str, options: CompileOptions, progress: Optional[Progress] = None
    ) -> Compiled:
        """Write an engine's files into `directory`, from a serialised ONNX graph of the form `graph_form(options.builder)`.

        Raises AmpnetError when the library is missing or refuses, OSError when the files cannot be written. What `progress`
        raises stops the build and is raised here.
        """

    def advice(self, precision: str) -> str:
        """What speaks against engines of this precision as long as nothing was measured, as a sentence, or ""."""
        return ""

    @abstractmethod
    def check(self, sidecar: Sidecar) -> None:
        """AmpnetError when this machine cannot run the engine: no library, another version, or made for other hardware."""

    def outputs(self, directory: Path) -> Optional[int]:
        """How many logits the network of an engine has, as its files say; None where they cannot be read without a GPU, or
        are damaged, which `open` says."""
        return None

    @abstractmethod
    def open(self, directory: Path, sidecar: Sidecar, options: LoadOptions) -> Executor:
        """Load an engine that `check` let pass. Raises MisuseError for options that do not go with this backend."""

    @abstractmethod
    def open_network(self, graph: FlexibleGraph, threads: Optional[int] = None) -> Network:
        """Load a network that is no engine of AMP-Net, such as a face detector, as it is in its ONNX file.

        threads: on a CPU, how many to run on; by default one per core. Raises AmpnetError when the library is missing or
        refuses the graph, which some do at the first image, or this machine has no GPU that the backend needs.
        """

    @abstractmethod
    def layers(self, directory: Path, sidecar: Sidecar) -> List[Layer]:
        """The layers of an engine, as the library lists them. Raises AmpnetError where this machine cannot open it."""

    @abstractmethod
    def layer_times(
        self, directory: Path, sidecar: Sidecar, faces: Tuple[np.ndarray, np.ndarray], runs: int, threads: Optional[int]
    ) -> List[Tuple[str, str, float]]:
        """(name, kernel, seconds of one run) of each layer, by the library's own profiler, over `runs` runs.

        faces: images and landmarks as the graph takes them. threads: for a CPU; by default one per core.
        """

    def require_twin(self, sidecar: Sidecar) -> None:
        """AmpnetError when an engine that was built on another machine does not belong on this one; for those that are not
        `portable`."""
        self.check(sidecar)

    def why_not_run(self, sidecar: Sidecar) -> str:
        """Why this machine cannot run an engine, or ""."""
        try:
            self.check(sidecar)
        except AmpnetError as error:
            return str(error)
        return ""


def pad_batch(values: np.ndarray, size: int) -> np.ndarray:
    """`values`, with the last repeated until there are at least `size`."""
    import numpy as np

    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing > 0 else values


# Name -> the module whose BACKENDS holds it.
REGISTERED = {
    "cpu": "ampnet_opt.runtime.openvino.backend",
    "tensorrt": "ampnet_opt.runtime.tensorrt.backend",
    "tensorrt-rtx": "ampnet_opt.runtime.tensorrt.backend",
    "onnxruntime": "ampnet_opt.runtime.onnxruntime.backend",
    "onnxruntime-cuda": "ampnet_opt.runtime.onnxruntime.backend",
    "onnxruntime-tensorrt": "ampnet_opt.runtime.onnxruntime.backend",
}


def find_backend(name: str) -> Backend:
    """The backend of a name. Raises MisuseError when there is none."""
    if name not in REGISTERED:
        raise MisuseError(f"there is no backend {name}; there are {listed(list(REGISTERED))}")
    found: Backend = import_module(REGISTERED[name]).BACKENDS[name]
    return found
