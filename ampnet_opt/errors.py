"""The two ways a command can end badly, each with the exit code a shell sees."""

from __future__ import annotations


class AmpnetError(Exception):
    """Something that was asked for could not be done; the message is one sentence for the user."""

    exit_code = 1


class MisuseError(AmpnetError):
    """The request itself was wrong (an option, a file that does not exist, a malformed CSV)."""

    exit_code = 2
