"""Where results go: files of text, drawn pictures and videos, all written frame by frame."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import List, Optional, Sequence, Set, Type, Union

import numpy as np
from PIL import Image

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.files import new_file, remove_abandoned, require_writable
from ampnet_opt.core.text import listed, printable
from ampnet_opt.pipeline.frames import FrameResult
from ampnet_opt.pipeline.hiding import Lingering
from ampnet_opt.pipeline.overlay import draw
from ampnet_opt.pipeline.records import FaceTable, JsonLines, Lines
from ampnet_opt.pipeline.sources import Source
from ampnet_opt.pipeline.video_writer import VideoWriter, require_video_name

PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


class Outputs:
    """Writes each result to all places that were asked for. A context manager: what was written is whole at its end."""

    def __init__(
        self,
        source: Source,
        classes: Sequence[str],
        *,
        drawn: Optional[Path] = None,
        json_lines: Optional[Path] = None,
        table: Optional[Path] = None,
        blur: bool = False,
    ) -> None:
        """
        Args:
            source: whose results come.
            classes: names by index.
            drawn: for the drawn frames: a video; of pictures a folder, or a file for a single one.
            json_lines: for JSON lines.
            table: for CSV.
            blur: make faces unrecognisable in what is drawn.

        Raises:
            MisuseError: a name does not go with the source.
            AmpnetError: a file cannot be made.
        """
        self._source, self._classes, self._drawn, self._blur = source, list(classes), drawn, blur
        self._names: Set[str] = set()
        self._lingering = Lingering()
        self._video: Optional[VideoWriter] = None
        self._writers: List[Union[JsonLines, FaceTable]] = []
        if drawn is not None:
            _require_place(drawn, source)
            if source.still and drawn.is_dir():
                remove_abandoned(drawn)
        with ExitStack() as begun:
            if json_lines is not None:
                self._add(JsonLines(Lines(json_lines), classes), begun)
            if table is not None:
                self._add(FaceTable(Lines(table), classes), begun)
            self._closing = begun.pop_all()
        for writer in self._writers:  # once all can be written: earlier results go now
            writer.begin()

    def _add(self, writer: Union[JsonLines, FaceTable], begun: ExitStack) -> None:
        begun.callback(writer.close)
        self._writers.append(writer)

    def write(self, result: FrameResult, *, shown: bool = False) -> Optional[np.ndarray]:
        """Write a result, and add the seconds of the stages draw and encode to it.

        Args:
            result: the next one.
            shown: whether the drawn frame is needed even if no file takes it.

        Returns:
            The drawn frame, uint8 [height, width, 3], RGB; None where none was asked for.

        Raises:
            AmpnetError: a file takes no more; what was written stays.
        """
        for writer in self._writers:
            writer.write(result)
        if self._drawn is None and not shown:
            return None
        start = time.perf_counter()
        also = self._lingering.update(result) if self._blur else []
        image = draw(result, self._classes, blur=self._blur, also_hidden=also)
        drawn = time.perf_counter()
        result.seconds["draw"] = drawn - start
        if self._drawn is not None:
            if self._source.still:
                self._save(image, result, self._drawn)
            else:
                self._encode(image, result, self._drawn)
            result.seconds["encode"] = time.perf_counter() - drawn
        return image

    def _encode(self, image: np.ndarray, result: FrameResult, place: Path) -> None:
        if self._video is None:
            size, source = (image.shape[1], image.shape[0]), self._source
            self._video = VideoWriter(place, size, source.rate, pixel_aspect=source.pixel_aspect)
            self._closing.callback(self._video.close)
        self._video.write(image, result.frame.time)

    def _save(self, image: np.ndarray, result: FrameResult, place: Path) -> None:
        alone = not _is_folder(place)
        if not alone:
            place = place / self._free_name(Path(result.frame.name), result.frame.index)
        with new_file(place, durable=alone) as temporary:
            Image.fromarray(image).save(temporary, PICTURES[place.suffix.lower()], quality=92)

    def _free_name(self, file: Path, index: int) -> str:
        """The name of a picture's drawing: its own, with a number where an earlier drawing has the same."""
        suffix = file.suffix.lower() if file.suffix.lower() in PICTURES else ".jpg"
        name = f"{file.stem}{suffix}"
        while name.lower() in self._names:  # a picture may be called as another one was numbered
            name = f"{file.stem}+{index}{suffix}"
            index += 1
        self._names.add(name.lower())
        return name

    def close(self) -> None:
        """Finish all files. Raises AmpnetError when one cannot be."""
        self._closing.close()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def _is_folder(drawn: Path) -> bool:
    """Whether a name for drawn pictures is that of a folder: one that is there, or a name without a suffix."""
    return drawn.is_dir() or not drawn.suffix


def _require_place(drawn: Path, source: Source) -> None:
    """MisuseError when a name for drawn frames does not go with the source, AmpnetError where they cannot be written."""
    if not source.still:
        require_video_name(drawn)
        require_writable(drawn)
    elif _is_folder(drawn):
        require_writable(drawn, directory=True)
    elif source.count != 1:
        raise MisuseError(f"{printable(drawn)} is one file, and there are {source.count} pictures: name a folder with -o")
    elif drawn.suffix.lower() not in PICTURES:
        raise MisuseError(
            f"{printable(drawn)} is not a picture that can be written; its name must end in {listed(PICTURES, 9)}"
        )
    else:
        require_writable(drawn.parent, directory=True)
