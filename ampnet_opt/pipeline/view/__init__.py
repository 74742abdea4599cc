"""The page of `run --view`."""
