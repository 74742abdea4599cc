"""Checkpoints, for scripts that train or change a network: read one, make an untrained one, save one."""

from ampnet_opt.network.checkpoint import Checkpoint, init_checkpoint, read_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "init_checkpoint", "read_checkpoint", "save_checkpoint"]
