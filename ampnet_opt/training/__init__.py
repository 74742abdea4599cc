"""Trains AMP-Net after its authors' recipe: augmentation, the loop, and the records that it leaves behind."""
