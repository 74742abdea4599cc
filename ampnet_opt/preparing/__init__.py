"""Photos to faces of 224 x 224 pixels with five landmarks."""
