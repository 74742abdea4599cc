"""Face detectors, on the runtimes of the backends."""
