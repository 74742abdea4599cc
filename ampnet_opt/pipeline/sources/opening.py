"""From what a user names to the source of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.picture_files import FORMATS, HEADER, Format, recognised, regular_file
from ampnet_opt.core.pictures import OTHER_PICTURES, PICTURES, is_picture
from ampnet_opt.core.text import printable
from ampnet_opt.pipeline.classify import pictures_in
from ampnet_opt.pipeline.sources import camera, csi, rtsp, video
from ampnet_opt.pipeline.sources.pictures import Pictures
from ampnet_opt.pipeline.sources.source import Source

HIDDEN = (".", "__")  # how the names begin that systems make: .cache, __MACOSX
MOTION_JPEG = {".mjpeg", ".mjpg"}  # begin as a picture does: they are JPEG after JPEG


def open_source(*texts: str) -> Source:
    """The source that the texts name: pictures and folders of them, any number, or one of the others.

    Args:
        texts: paths of pictures, folders and videos; "-" for a video on standard input; `/dev/video0` or `camera:0`;
            `csi:0` on a Jetson; `rtsp://...`. Whether a file is a picture or a video its first bytes say.

    Raises:
        MisuseError: nothing is there, it is neither a picture nor a video, or things are mixed.
        AmpnetError: a package is missing, or a camera does not answer.
    """
    for text in texts:
        if text == video.STDIN or _is_device(text) or _has_video_name(text):
            _require_alone(text, texts)
            return _open_alone(text)
        unnamed = _unnamed_video(text)
        if unnamed is not None:
            with ExitStack() as opened:
                opened.callback(unnamed.close)
                _require_alone(text, texts)
                opened.pop_all()
            return unnamed
    if len(texts) == 1:
        _require_picture(Path(texts[0]))
    return Pictures(_files(texts))


def is_camera(*texts: str) -> bool:
    """Whether `open_source` gives a live source for the texts. Raises MisuseError for what names none, as it does."""
    return any(_is_device(text) for text in texts)


def _require_alone(text: str, texts: Sequence[str]) -> None:
    if len(texts) > 1:
        name = rtsp.without_password(text) if "://" in text else printable(text)
        raise MisuseError(f"{name} goes alone: give one video or camera, or pictures and folders")


def _open_alone(text: str) -> Source:
    if text.startswith(rtsp.SCHEMES):
        return rtsp.RtspCamera(text)
    if camera.device(text) is not None:
        return camera.Camera(text)
    if csi.sensor_of(text) is not None:
        return csi.csi_camera(text)
    return video.Video(text)


def _is_device(text: str) -> bool:
    if text.startswith(rtsp.SCHEMES) or camera.device(text) is not None or csi.sensor_of(text) is not None:
        return True
    if "://" in text or text.startswith(("camera:", "csi:")):
        name = rtsp.without_password(text) if "://" in text else printable(text)
        raise MisuseError(f"{name} names no source; there are rtsp://HOST/PATH, camera:0, /dev/video0, csi:0, and -")
    return False


def _has_video_name(text: str) -> bool:
    """Whether a path is to be read as a video by its kind or name, and is no picture by its first bytes."""
    path = Path(text)
    if path.is_fifo():
        return True
    if not path.is_file():
        return False
    if _picture_format(path) is not None:
        return path.suffix.lower() in MOTION_JPEG
    return video.is_video_name(path)


def _unnamed_video(text: str) -> Optional[video.Video]:
    """The video that a file of any other name holds. A file that cannot be read is none: its reader says why."""
    path = Path(text)
    if not path.is_file() or _picture_format(path) is not None:
        return None
    try:
        return video.Video(text)
    except MisuseError:
        return None
    except AmpnetError:  # PyAV is missing
        if _has_picture_name(path):
            return None
        raise


def _picture_format(path: Path) -> Optional[Format]:
    try:
        with regular_file(path) as stream:
            return recognised(stream.read(HEADER))
    except MisuseError:
        return None


def _has_picture_name(path: Path) -> bool:
    return path.suffix.lower() in PICTURES | OTHER_PICTURES


def _require_picture(path: Path) -> None:
    if path.is_file() and path.stat().st_size > 0 and not _has_picture_name(path) and _picture_format(path) is None:
        known = ", ".join(each.name for each in FORMATS)
        raise MisuseError(f"{printable(path)} is neither a picture ({known}) nor a video that FFmpeg reads")


def _files(paths: Sequence[str]) -> List[Path]:
    files: List[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _inside(path)
        elif path.exists():
            files.append(path)
        else:
            raise MisuseError(f"image or video {printable(path)} does not exist")
    return files


def beside_pictures(paths: Sequence[Path]) -> Tuple[List[Path], List[Path]]:
    """The folders, and the videos, that lie in the folders among `paths`: of each folder its own pictures alone are taken.

    Hidden ones do not count.
    """
    found = [inside for path in paths if path.is_dir() for inside in path.iterdir() if not inside.name.startswith(HIDDEN)]
    folders = sorted(inside for inside in found if inside.is_dir())
    return folders, sorted(inside for inside in found if video.is_video_name(inside) and inside.is_file())


def _inside(folder: Path) -> List[Path]:
    found = sorted(folder.iterdir())
    videos = [file for file in found if video.is_video_name(file)]
    if videos and not any(is_picture(file, PICTURES | OTHER_PICTURES) for file in found):
        first = printable(videos[0].name)
        raise MisuseError(f"folder {printable(folder)} holds videos, which are given one by one, such as {first}")
    return pictures_in(folder)
