"""The page of `run --view`: the picture, each face's probabilities over the last minute, and the time of each stage."""

from ampnet_opt.pipeline.view.address import Address, parse_address
from ampnet_opt.pipeline.view.server import View

__all__ = ["Address", "View", "parse_address"]
