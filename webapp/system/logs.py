"""What the log leaves out."""

import logging

NO_BODY = "ASGI app sent body bytes on a no-body response"


class WithoutTraceback(logging.Filter):
    """Keeps the sentence and drops the traceback: for what strangers can cause at will."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


class WithoutRefusedForms(logging.Filter):
    """Keeps quiet about 422: a form with errors was shown again, which is no fault of anybody here."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 422


class WithoutHeads(logging.Filter):
    """Keeps quiet about bodies of HEAD requests: Django makes them, the server leaves them out, as it should."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(NO_BODY)
