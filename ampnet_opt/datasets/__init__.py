"""Data sets as their authors publish them, each read by one module into the same list of pictures."""
