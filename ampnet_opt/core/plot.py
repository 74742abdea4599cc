"""matplotlib, for every picture of ours."""

from __future__ import annotations

import os
from typing import Any

from ampnet_opt.core.cache import cache_or_temporary
from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command


def load_figure(task: str) -> Any:
    """The class `Figure`. task: a sentence's beginning, "the picture is drawn", for the AmpnetError without matplotlib.

    matplotlib keeps its list of fonts in our cache, unless the user has set MPLCONFIGDIR.
    """
    os.environ.setdefault("MPLCONFIGDIR", str(cache_or_temporary("matplotlib")))
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AmpnetError(f"{task} with matplotlib ({error}): {install_command('plot')}") from error
    return Figure
