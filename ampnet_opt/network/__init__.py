"""AMP-Net in PyTorch, and the files that hold its weights."""
