"""AMP-Net, from a PyTorch checkpoint to the fastest engine that is still right."""

import os

from ampnet_opt.core.errors import AmpnetError, MisuseError

__all__ = ["AmpnetError", "MisuseError"]

__version__ = "0.4.0"

# ONNX Runtime reports to its makers unless it finds this when it is loaded. Here, as whatever imports it imports this first,
# and child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
