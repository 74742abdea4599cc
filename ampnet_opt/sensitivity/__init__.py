"""Which layers INT8 costs most, by the task's own metrics, and the fewest that have to stay in floating point."""
