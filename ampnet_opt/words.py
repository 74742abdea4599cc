"""Words of sentences for users. Standard library only."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
