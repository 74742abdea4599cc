"""An RTSP server on loopback, run by a Python that has GStreamer's bindings: PORT [USER PASSWORD]. Prints "ready".

/live is a moving picture of 320 x 240 at 30 a second, with sound.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURES = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay pt=96"
)
SOUND = "audiotestsrc is-live=true ! alawenc ! rtppcmapay"


def main(port: str, user: str = "", password: str = "") -> None:
    """Serve until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(f"( {PICTURES} name=pay0 {SOUND} name=pay1 pt=8 )")
    server.get_mount_points().add_factory("/live", factory)
    if user:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        role = Gst.Structure.new_from_string("user, media.factory.access=(bool)true, media.factory.construct=(bool)true")
        factory.add_role_from_structure(role)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
