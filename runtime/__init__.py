"""Running engines: numpy and one backend, nothing else."""

from ampnet_opt.runtime.engine import Engine

__all__ = ["Engine"]
