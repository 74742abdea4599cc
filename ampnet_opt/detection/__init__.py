"""Face detectors, on the runtimes of the backends: `load_detector` in `detector`."""
