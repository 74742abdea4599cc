"""The cpu backend: OpenVINO."""
