"""Where the tests find what they read."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
BOARDS = SUPPORT / "boards"  # system files of Jetsons
SHARED = ROOT.parent / "shared"  # faces and recorded cases that do not belong to the project; tests skip where it is absent
