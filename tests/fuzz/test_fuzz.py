"""Whatever is in a file: it is read, or refused in one sentence, in time and within memory.

AMPNET_OPT_FUZZ_SECONDS sets for how many seconds all targets together are tried (default: 30), beside the start of a process
for each. For an hour, with what was tried in the end:

    AMPNET_OPT_FUZZ_SECONDS=3600 python -m pytest tests/fuzz -s
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections import Counter

import pytest
from fuzz_mutations import STRATEGIES
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, Phase, given, seed, settings

if not sys.platform.startswith("linux"):
    pytest.skip("needs Linux's limits of memory and time", allow_module_level=True)

from fuzz_worker import Reader

SECONDS = float(os.environ.get("AMPNET_OPT_FUZZ_SECONDS", "30")) / len(TARGETS)
EXAMPLES = 200  # from one seed
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_is_read_or_refused_in_one_sentence(name: str) -> None:
    target = TARGETS[name]
    valid = target.valid()
    reader = Reader(name)
    outcomes: Counter[str] = Counter()
    longest, end = 0.0, math.inf

    def check(data: bytes) -> None:
        nonlocal longest
        start = time.perf_counter()
        if start > end:
            return
        found = reader.read(data)
        longest = max(longest, time.perf_counter() - start)
        outcomes[found["outcome"]] += 1
        assert found["outcome"] != "failed", f"{found['text']}\nfrom the {len(data)} bytes {data[:2000]!r}"

    try:
        check(valid)  # before the clock starts: it imports what the reader needs
        longest, end = 0.0, time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            number = random.randrange(1 << 32)
            examples = given(STRATEGIES[target.structure](valid))(check)
            run = settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            )(seed(number)(examples))
            run()
    finally:
        reader.close()
        print(f"{name}: {sum(outcomes.values())} files, {dict(outcomes)}, {longest:.2f} s at most")
    assert sum(outcomes.values()) > 1
