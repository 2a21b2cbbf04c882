"""The errors a command ends with; each message is one line for the user."""


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class Stopped(Exception):
    """A signal ended the experiment, which can be resumed; the message says how."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
