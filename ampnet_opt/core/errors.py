"""The two ways a command can end badly, each with the exit code a shell sees."""

from __future__ import annotations

__all__ = ["AmpnetError", "MisuseError"]


class AmpnetError(Exception):
    """Something that was asked for could not be done.

    Args:
        message: one sentence for the user.
        whole: the same with all that the sentence only counts, for --verbose; by default the message.

    Attributes:
        whole: as given.
        exit_code: of a command that ends with this.
    """

    exit_code = 1

    def __init__(self, message: str = "", whole: str = "") -> None:
        super().__init__(message)
        self.whole = whole or message


class MisuseError(AmpnetError):
    """The request itself was wrong (an option, a file that does not exist, a malformed CSV)."""

    exit_code = 2
