"""Where frames come from: `open_source` takes pictures, folders, videos, cameras, RTSP and standard input."""

from ampnet_opt.pipeline.sources.opening import is_camera, open_source
from ampnet_opt.pipeline.sources.source import Source

__all__ = ["Source", "is_camera", "open_source"]
