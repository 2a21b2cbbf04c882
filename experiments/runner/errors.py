"""The errors a command ends with; each message is one line for the user."""

from pathlib import Path


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class FolderError(Exception):
    """A run's folder cannot be used, for the stated reason."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder, self.reason = folder, reason


class BlockError(Exception):
    """The blocks in a run's folder are broken or of another version."""


class SaveError(OSError):
    """A checkpoint could not be saved; earlier checkpoints are untouched."""


class Stopped(Exception):
    """A signal ended the run, which can be resumed; the message says how."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
