"""AMP-Net, from a PyTorch checkpoint to the fastest engine that is still right."""

__version__ = "0.1.0"
