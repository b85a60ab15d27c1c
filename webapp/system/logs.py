"""What the log leaves out."""

import logging


class WithoutTraceback(logging.Filter):
    """Keeps the sentence and drops the traceback: for what strangers can cause at will."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True
