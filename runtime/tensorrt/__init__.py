"""The tensorrt and tensorrt-rtx backends."""
