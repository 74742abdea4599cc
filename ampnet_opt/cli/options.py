"""Options that several commands share, one definition each; their choices, limits and the panels of the help.

Limits and choices that a lower layer enforces too stand here again, since importing that would import numpy:
tests/cli/test_options.py holds the two together.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set

import typer

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.messages import say, stdout_named

ENGINES = Path("engines")

# Panels of the help.
WHAT = "What to build"
FACES_PANEL = "Faces"
CALIBRATION_PANEL = "Calibration"
BUDGET_PANEL = "Accuracy budget"
TENSORRT_PANEL = "TensorRT"
NETWORK_PANEL = "Network"
DETECTION_PANEL = "Detection"
PIPELINE_PANEL = "Pipeline"
TRAINING_PANEL = "Training"
INFERENCE_PANEL = "Inference"
OUTPUT_PANEL = "Output"

LARGEST_INTEGER = 1 << 53  # whole numbers up to here are exact in a float64; no option means more
LARGEST_BATCH = 1 << 16
LARGEST_WORKSPACE = 1 << 24  # MiB
LARGEST_RADIUS = 14  # cells of the feature map
LARGEST_WIDTH = 4
LARGEST_FACE = 1 << 14  # pixels
MOST_RUNS = 1_000_000
MOST_WORKERS = 4096  # threads or processes


class CalibrationMethod(str, Enum):
    """How a range is found in a histogram; those of calibration.ranges."""

    entropy = "entropy"
    percentile = "percentile"
    mse = "mse"
    minmax = "minmax"


class ImageInput(str, Enum):
    uint8 = "uint8"
    float32 = "float32"


class Hardware(str, Enum):
    """Other GPUs that a TensorRT plan runs on."""

    none = "none"
    ampere_plus = "ampere+"
    same_compute_capability = "same-compute-capability"


def one_of(option: str, names: Callable[[], Iterable[str]]) -> Dict[str, Any]:
    """Arguments of typer.Option for a choice whose names stand in a registry: a new entry there is one here.

    names: called when a value is read or completed, since the registry may import what is slow.
    """

    def parse(value: str) -> str:
        allowed = list(names())
        if value not in allowed:
            raise MisuseError(not_a_choice(option, allowed, value))
        return value

    def complete(incomplete: str) -> List[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return {"parser": parse, "autocompletion": complete}


def not_a_choice(option: str, allowed: Iterable[str], value: object) -> str:
    return f"{option} takes {', '.join(allowed)}, not {value!r}"


def _backends() -> Iterable[str]:
    from ampnet_opt.runtime.backend import REGISTERED

    return REGISTERED


# What to build
INT8 = typer.Option(False, "--int8", help="INT8 by Q/DQ, calibrated on --data.", rich_help_panel=WHAT)
FP16 = typer.Option(False, "--fp16", help="FP16.", rich_help_panel=WHAT)
BF16 = typer.Option(False, "--bf16", help="BF16: cpu, tensorrt from 10 on, tensorrt-rtx.", rich_help_panel=WHAT)
FP32 = typer.Option(False, "--fp32", help="FP32.", rich_help_panel=WHAT)
BACKEND = typer.Option(
    None,
    "--backend",
    metavar="BACKEND",
    help="A backend that doctor lists (default: the one it names).",
    rich_help_panel=WHAT,
    **one_of("--backend", _backends),
)


def batch_option(name: str, default: Optional[int], help_text: str) -> Any:
    return typer.Option(default, name, min=1, max=LARGEST_BATCH, help=help_text, rich_help_panel=WHAT)


# Network
CKPT = typer.Argument(..., metavar="CKPT", help="Checkpoint: the authors' .pth, or our .safetensors.")
SHIPPED = typer.Argument(None, metavar="[CKPT]", help="Checkpoint (default: the one that comes with the package).")
CLASSES = typer.Option(
    None,
    "--classes",
    help="A preset (rafdb, affectnet7, affectnet8, fer2013, ferplus), or names separated by commas.",
    rich_help_panel=NETWORK_PANEL,
)
RADIUS = typer.Option(
    None,
    "--patch-radius",
    min=1,
    max=LARGEST_RADIUS,
    help="Patch radius, which the authors' files do not hold (published: 5).",
    rich_help_panel=NETWORK_PANEL,
)
INPUT = typer.Option(
    ImageInput.uint8, "--input", help="uint8 [N, 224, 224, 3] or float32 [N, 3, 224, 224].", rich_help_panel=NETWORK_PANEL
)

# Faces
DATA = typer.Option(
    None,
    "--data",
    help="Table of faces with images/ beside it, or its folder (default: drawn faces).",
    rich_help_panel=FACES_PANEL,
)
LANDMARKS_FORMAT = typer.Option(
    "auto",
    "--landmarks-format",
    metavar="FORMAT",
    help="Form of the landmarks: auto (pixels, and other forms are refused), or separated by commas one of pixels, "
    "normalised (0 to 1), signed (-1 to 1), percent, of-224 (pixels of the picture scaled to 224 x 224), unrotated (before "
    "its EXIF orientation), and any of five-x-five-y, yx (y before x), nose-first, nose-last, mouth-first, subject (left "
    "and right of the person), y-up (y from the bottom).",
    rich_help_panel=FACES_PANEL,
)


def split_option(default: str, use: str) -> Any:
    """use: what the rows are for, after "Rows of the table to"."""
    return typer.Option(
        default, "--split", help=f"Split of the table to {use}; all: every row.", rich_help_panel=FACES_PANEL
    )


def faces_option(default: Optional[int]) -> Any:
    ending = " (default: all)" if default is None else ""
    return typer.Option(
        default,
        "--faces",
        min=1,
        help=f"Number of faces, spread evenly over the split{ending}.",
        rich_help_panel=FACES_PANEL,
    )


# Calibration. The default is calibration.ranges.DEFAULT, which a test holds it to.
METHOD = typer.Option(
    CalibrationMethod.entropy, "--calibration", help="Method that finds the INT8 ranges.", rich_help_panel=CALIBRATION_PANEL
)
SCALES = typer.Option(
    None, "--scales", help="Use this calibration table instead of calibrating.", rich_help_panel=CALIBRATION_PANEL
)

# Accuracy budget
MAX_DROP = typer.Option(
    None,
    "--max-drop",
    min=0,
    help="Points of top-1 that INT8 may lose. As many layers as needed stay in floating point.",
    rich_help_panel=BUDGET_PANEL,
)
MIN_SQNR = typer.Option(
    None,
    "--min-sqnr",
    help="Logit SQNR that INT8 must reach, in dB. As many layers as needed stay in floating point.",
    rich_help_panel=BUDGET_PANEL,
)
MIN_AGREEMENT = typer.Option(
    99.0,
    "--min-agreement",
    min=0,
    max=100,
    help="With either: per cent of the answers that must stay the same.",
    rich_help_panel=BUDGET_PANEL,
)
HELD_OUT = typer.Option(
    "val", "--held-out", help="With either: split of the table on which the budget is checked.", rich_help_panel=BUDGET_PANEL
)
FINAL = typer.Option(
    "test",
    "--final",
    help="Split of the table that proves the best engine; it chooses nothing.",
    rich_help_panel=FACES_PANEL,
)
RANKING = typer.Option(
    None,
    "--sensitivity",
    help="With either: a file of ampnet-opt sensitivity (default: measure now).",
    rich_help_panel=BUDGET_PANEL,
)

# TensorRT's builder; what they mean and which versions have them is in runtime's builder options.
CAPABILITIES = typer.Option(
    None,
    "--compute-capability",
    help="Compute capability of the GPUs of a tensorrt-rtx engine, such as 8.9; repeatable (default: all from 8.0).",
    rich_help_panel=TENSORRT_PANEL,
)
WORKSPACE = typer.Option(
    None,
    "--workspace",
    min=1,
    max=LARGEST_WORKSPACE,
    help="GPU memory that a layer may use, in MiB.",
    rich_help_panel=TENSORRT_PANEL,
)
OPTIMIZATION = typer.Option(
    None,
    "--optimization-level",
    min=0,
    max=5,
    help="From 0 (builds fast) to 5 (runs fast); the library's default is 3.",
    rich_help_panel=TENSORRT_PANEL,
)
TIMING_CACHE = typer.Option(
    None,
    "--timing-cache",
    help="File of kernel times (default: one for each GPU and version).",
    rich_help_panel=TENSORRT_PANEL,
)
VERSION_COMPATIBLE = typer.Option(
    False,
    "--version-compatible",
    "--lean",
    help="Build a plan that later versions and tensorrt_lean run, too.",
    rich_help_panel=TENSORRT_PANEL,
)
HARDWARE_COMPATIBLE = typer.Option(
    Hardware.none, "--hardware-compatible", help="Other GPUs that the plan shall run on.", rich_help_panel=TENSORRT_PANEL
)
DLA = typer.Option(
    None,
    "--dla",
    min=0,
    help="Build for this DLA core of a Jetson, from 0; needs --fp16 and one batch size.",
    rich_help_panel=TENSORRT_PANEL,
)
LOG = typer.Option(None, "--log", help="Write all messages of the library to this file.", rich_help_panel=TENSORRT_PANEL)

# Inference
BATCH = typer.Option(
    1, "--batch", min=1, max=LARGEST_BATCH, help="Faces in a timed inference.", rich_help_panel=INFERENCE_PANEL
)
THREADS = typer.Option(
    None,
    "--threads",
    min=1,
    max=MOST_WORKERS,
    help="CPU threads (default: one for each core).",
    rich_help_panel=INFERENCE_PANEL,
)


def runs_option(fewest: int, help_text: str) -> Any:
    return typer.Option(50, "--runs", min=fewest, max=MOST_RUNS, help=help_text, rich_help_panel=INFERENCE_PANEL)


FRAMES = typer.Option(
    None, "--frames", min=1, max=MOST_RUNS, help="Stop after this many frames.", rich_help_panel=INFERENCE_PANEL
)

# Detection
DETECTOR = typer.Option(
    None,
    "--detector",
    metavar="FILE",
    help="ONNX file of YuNet or CenterFace (default: CenterFace of [detect]).",
    rich_help_panel=DETECTION_PANEL,
)
DETECTOR_BACKEND = typer.Option(
    None,
    "--detector-backend",
    metavar="BACKEND",
    help="Backend that runs the detector (default: the fastest on a CPU).",
    rich_help_panel=DETECTION_PANEL,
    **one_of("--detector-backend", _backends),
)
DETECTOR_PRECISION = typer.Option(
    None,
    "--detector-precision",
    metavar="fp32|int8",
    help="Precision of the default detector (default: int8 for videos where OpenVINO is installed, else fp32).",
    rich_help_panel=DETECTION_PANEL,
)
MIN_FACE = typer.Option(
    40,
    "--min-face",
    min=16,
    max=LARGEST_FACE,
    help="Smallest face to find in a video, in pixels.",
    rich_help_panel=DETECTION_PANEL,
)
EVERY = typer.Option(
    1, "--every", min=1, max=1000, help="Detect only in every Nth frame of a video.", rich_help_panel=DETECTION_PANEL
)

# Output
FORCE = typer.Option(False, "--force", help="Replace an existing output.", rich_help_panel=OUTPUT_PANEL)


def output_option(default: Any, help_text: str) -> Any:
    """default: a path, or ... where the option must be given."""
    return typer.Option(default, "-o", "--output", help=help_text, rich_help_panel=OUTPUT_PANEL)


def json_option(what: str) -> Any:
    return typer.Option(
        None, "--json", metavar="FILE", help=f"Write {what} to this file; -: print it instead.", rich_help_panel=OUTPUT_PANEL
    )


def picture_option(what: str) -> Any:
    return typer.Option(None, "--picture", metavar="FILE", help=f"PNG of {what}.", rich_help_panel=OUTPUT_PANEL)


def given(context: typer.Context) -> Set[str]:
    """Names of the parameters that stand on the command line."""
    names = [str(parameter.name) for parameter in context.command.params]
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def flags(context: typer.Context, names: Set[str]) -> str:
    """The options of these parameters, by commas."""
    return ", ".join(parameter.opts[0] for parameter in context.command.params if parameter.name in names)


STDOUT = Path("-")


def write_json(place: Path, text: str) -> None:
    """Write what is JSON already. A file that stands there is replaced."""
    from ampnet_opt.core.files import write_text

    if place == STDOUT:
        with stdout_named():
            print(text, end="", flush=True)
    else:
        write_text(place, text)


@contextmanager
def json_lines(place: Path) -> Iterator[Callable[[Any], None]]:
    """Writes each object that it is called with as a line: on stdout at once, to a file when the block ends well."""
    from ampnet_opt.core.files import new_file

    if place == STDOUT:
        yield lambda content: say(json.dumps(content))
        return
    with new_file(place) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        yield lambda content: print(json.dumps(content), file=stream)
