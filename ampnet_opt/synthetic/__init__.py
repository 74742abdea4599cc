"""Drawn faces with exact landmarks and seven expressions, and contempt: numpy and Pillow only."""

from ampnet_opt.synthetic.dataset import default_faces, face, write

__all__ = ["default_faces", "face", "write"]
