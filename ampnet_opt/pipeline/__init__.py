"""From pictures to expressions."""
