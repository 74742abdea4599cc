"""Engines for servers and clusters of others: Triton, OpenVINO Model Server, Ray."""
