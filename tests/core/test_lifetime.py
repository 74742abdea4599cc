"""What the end of a process does, in which order, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.lifetime import end_after_engines, end_with_process

class Engine:
    def end(self, deadline):
        print("an engine is freed", flush=True)
        raise AmpnetError("the GPU has failed")

end_after_engines(lambda: print("what they need is freed"))
engines = Engine(), Engine()
for engine in engines:
    end_with_process(engine)
"""


def test_what_engines_need_is_freed_after_all_of_them_even_where_one_fails() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["an engine is freed", "an engine is freed", "what they need is freed"]
    assert done.stderr.splitlines() == ["an engine could not be freed: the GPU has failed"] * 2
