"""The errors affectbench raises: every one names what is wrong, and most say how to put it right."""

from __future__ import annotations


class AffectbenchError(Exception):
    """Base of all errors that affectbench raises on purpose.

    Args:
        message: what is wrong, naming the offending file, key or identifier.
        hint: what to do about it; printed after the message.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class ScoreError(AffectbenchError):
    """The arrays given for scoring contradict each other or hold impossible values."""


class RecordError(AffectbenchError):
    """A record, its predictions or the store that holds them cannot be read, trusted or written."""


class UntrustedCodeError(AffectbenchError):
    """A submission or a checkpoint brings code of its own, and nobody said that it may be run."""
