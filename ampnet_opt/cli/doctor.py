"""`ampnet-opt doctor`: what can this machine do?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

from ampnet_opt.cli.options import STDOUT, json_option, write_json


def doctor(json_file: Optional[Path] = json_option("everything found")) -> None:
    """Show what this machine can do, and how to get what is missing."""
    from ampnet_opt.core.console import console
    from ampnet_opt.pipeline.sources.available import available_sources
    from ampnet_opt.system.doctor import examine, render_findings

    findings = {**examine(), "sources": available_sources()}
    if json_file is not None:
        write_json(json_file, json.dumps(findings, indent=2) + "\n")
    if json_file != STDOUT:
        console().print(render_findings(findings))
