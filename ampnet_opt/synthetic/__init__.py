"""Drawn faces with exact landmarks and seven expressions, and contempt: numpy and Pillow only."""

from ampnet_opt.synthetic.dataset import default_faces, face, write
from ampnet_opt.synthetic.parameters import EXPRESSIONS

__all__ = ["EXPRESSIONS", "default_faces", "face", "write"]
