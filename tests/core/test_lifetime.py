"""What the end of a process does, in which order, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
from ampnet_opt.core.lifetime import end_after_engines, end_with_process

class Engine:
    def end(self, deadline):
        print("the engine is freed")

end_after_engines(lambda: print("what it needs is freed"))
engine = Engine()
end_with_process(engine)
"""


def test_what_engines_need_is_freed_after_them() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["the engine is freed", "what it needs is freed"]
