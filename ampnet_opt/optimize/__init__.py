"""`ampnet-opt optimize`: of all engines that could be built, the fastest one that is shown to be right."""
