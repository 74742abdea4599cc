"""From what a user names to the source of it."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

from ampnet_opt.core.errors import MisuseError
from ampnet_opt.core.text import printable
from ampnet_opt.faces.picture_files import FORMATS, HEADER, recognised, regular_file
from ampnet_opt.faces.pictures import OTHER_PICTURES, PICTURES, is_picture, remedy
from ampnet_opt.pipeline.sources import camera, csi, rtsp, video
from ampnet_opt.pipeline.sources.pictures import Pictures
from ampnet_opt.pipeline.sources.source import Source


def open_source(*texts: str) -> Source:
    """The source that the texts name: pictures and folders of them, any number, or one of the others.

    Args:
        texts: paths of pictures, folders and videos; "-" for a video on standard input; `/dev/video0` or `camera:0`;
            `csi:0` on a Jetson; `rtsp://...`. Whether a file is a picture or a video its first bytes say.

    Raises:
        MisuseError: nothing is there, it is neither a picture nor a video, or things are mixed.
        AmpnetError: a package is missing, or a camera does not answer.
    """
    alone = [text for text in texts if text == video.STDIN or _is_device(text) or _is_video(text)]
    if alone and len(texts) > 1:
        raise MisuseError(f"{printable(alone[0])} goes alone: give one video or camera, or pictures and folders")
    if not alone:
        return Pictures(_files(texts))
    text = alone[0]
    if text.startswith(rtsp.SCHEMES):
        return rtsp.RtspCamera(text)
    if camera.device(text) is not None:
        return camera.Camera(text)
    if csi.sensor_of(text) is not None:
        return csi.CsiCamera(text)
    return video.Video(text)


def _is_device(text: str) -> bool:
    if text.startswith(rtsp.SCHEMES) or camera.device(text) is not None or csi.sensor_of(text) is not None:
        return True
    if "://" in text or text.startswith(("camera:", "csi:")):
        raise MisuseError(
            f"{printable(text)} names no source; there are rtsp://HOST/PATH, camera:0, /dev/video0, csi:0, and -"
        )
    return False


def _is_video(text: str) -> bool:
    """Whether a path is to be read as a video: anything but a folder and a file that begins as a picture does."""
    path = Path(text)
    if path.is_fifo():
        return True
    if not path.is_file():
        return False
    with regular_file(path) as stream:
        format = recognised(stream.read(HEADER))
    if format is not None:
        return video.is_stream_of_jpegs(path)
    if not video.is_video_name(path):
        try:
            video.Video(text).close()
        except MisuseError:
            if path.suffix.lower() in PICTURES | OTHER_PICTURES:
                return False  # a picture's reader says what is wrong
            known = ", ".join(each.name for each in FORMATS)
            raise MisuseError(f"{printable(text)} is neither a picture ({known}) nor a video that FFmpeg reads") from None
    return True


def _files(paths: Sequence[str]) -> List[Path]:
    files: List[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise MisuseError(f"image or video {printable(path)} does not exist")
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if is_picture(file))
        if not inside:
            others = [file for file in path.iterdir() if is_picture(file, OTHER_PICTURES)]
            what = f"holds pictures that are not read here: {remedy(others[0].suffix)}" if others else "holds no pictures"
            raise MisuseError(f"folder {printable(path)} {what}")
        files += inside
    return files
