"""What this machine is: its board, its clocks, and which engines it can build and run."""
