"""What the client tells a person when something cannot be done, and the exit codes of its commands."""

OK, FAILED, WRONG_USE, CANCELLED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 124, 130


class ClientError(Exception):
    """One sentence and what to do about it. `status` is the answer's, 0 when the server was not reached; `pause` is
    how many seconds it asks to wait before another try."""

    def __init__(self, text: str, *, exit_code: int = FAILED, status: int = 0, pause: float | None = None) -> None:
        super().__init__(text)
        self.exit_code, self.status, self.pause = exit_code, status, pause


class Away(ClientError):
    """The server does not answer, or broke off."""


class WrongUse(ClientError):
    """The command cannot be carried out as it was written."""

    def __init__(self, text: str) -> None:
        super().__init__(text, exit_code=WRONG_USE)
