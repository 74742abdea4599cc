"""The page of --view in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import browser
import numpy as np
import pytest
from published import frame, tracked

from ampnet_opt.pipeline.view import View

pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.PATH is None, reason="there is no Chromium here")]

TEXT = "document.body.innerText"
HOSTILE = "<img src=x onerror=document.title='hit'>"
GREY = """(() => {
  const [picture, canvas] = [document.getElementById("picture"), document.createElement("canvas")];
  [canvas.width, canvas.height] = [8, 8];
  const pen = canvas.getContext("2d");
  try { pen.drawImage(picture, 0, 0, 8, 8); } catch { return 0; }
  return pen.getImageData(4, 4, 1, 1).data[0];
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_the_page_shows_faces_and_says_when_there_are_none_and_when_it_ends(chromium: browser.Browser) -> None:
    about = {"Engine": HOSTILE, "Precision": "INT8"}
    view = View(port=0, token="opensesame", classes=["neutral", HOSTILE, "sadness"], about=about, stored=["faces.jsonl"])
    view.start()
    shown = 0

    def publish(*probabilities: float) -> None:
        nonlocal shown
        shown += 1
        faces = [tracked(7, probabilities)] if probabilities else []
        view.publish(frame(shown, *faces), np.full((120, 160, 3), 180, np.uint8), dropped=5)

    chromium.show(1280, 800)
    chromium.open(view.address)
    chromium.wait(f"{TEXT}.includes('Waiting for the first picture')")
    assert chromium.ask("location.search") == ""
    chromium.wait(f"{TEXT}.includes('81 %')", lambda: publish(0.1, 0.81, 0.09))
    chromium.wait(f"Math.abs({GREY} - 180) < 4", lambda: publish(0.1, 0.81, 0.09))
    text = chromium.ask(TEXT)
    assert HOSTILE in text and chromium.ask("document.title") == "ampnet-opt live view"
    assert "face 7" in text and "INT8" in text and "This run stores: faces.jsonl." in text
    assert chromium.ask("document.querySelectorAll('.rows li.shown').length") == 1
    chromium.wait(f"{TEXT}.includes('7.0 ms')")
    painted = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 300, 60).data].some(Boolean)"
    chromium.wait(painted)

    chromium.wait(f"{TEXT}.includes('No face in view')", publish)

    chromium.ask("document.getElementById('pause').click()")
    assert chromium.ask("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    frames = chromium.ask("document.getElementById('frames').textContent")
    for _ in range(20):
        publish(0.7, 0.2, 0.1)
    assert chromium.ask("document.getElementById('frames').textContent") == frames
    for kind in ("keyDown", "keyUp"):
        chromium.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", windowsVirtualKeyCode=32, text=" ")
    chromium.wait(f"{TEXT}.includes('70 %')", lambda: publish(0.7, 0.2, 0.1))

    view.end("The video has ended.")
    chromium.wait(f"{TEXT}.includes('The video has ended.')")
    assert chromium.problems() == []
    view.close()
    chromium.wait(f"{TEXT}.includes('Waiting for the next.')")


@pytest.mark.parametrize("width", [360, 800, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window_and_its_text_contrasts(chromium: browser.Browser, width: int, dark: bool) -> None:
    with View(port=0, classes=["neutral", "contempt" * 8], about={"Engine": "e" * 100}) as view:
        view.publish(frame(0, tracked(1, [0.4, 0.6])), np.zeros((120, 160, 3), np.uint8))
        chromium.show(width, 700, dark=dark)
        chromium.open(view.address)
        chromium.wait(f"{TEXT}.includes('60 %')")
        assert chromium.ask("document.documentElement.scrollWidth") <= width
        colours = chromium.ask(
            "['paper', 'ink', 'quiet', 'bright', 'bad'].map((name) =>"
            " getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim())"
        )
        paper, *inks = map(luminance, colours)
        assert min((max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) for ink in inks) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_page_that_lost_its_server_comes_back_with_it(chromium: browser.Browser) -> None:
    view = View(port=0, classes=["neutral"])
    view.start()
    number = int(view.address.split(":")[-1].strip("/"))
    chromium.open(view.address)
    chromium.wait(f"{TEXT}.includes('Waiting for the first picture')")
    view.close()
    chromium.wait("document.getElementById('status').dataset.state === 'lost'")
    with View(port=number, classes=["neutral"]) as again:
        again.publish(frame(0), np.zeros((120, 160, 3), np.uint8))
        chromium.wait(f"{TEXT}.includes('Live')", lambda: again.publish(frame(1), np.zeros((120, 160, 3), np.uint8)))
