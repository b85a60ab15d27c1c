"""The border of a task: what goes wrong in our own code gets a mark, which people read and the log explains."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from django.db import DatabaseError

logger = logging.getLogger(__name__)


@contextmanager
def marked(what: str, fail: Callable[[str], object]) -> Iterator[None]:
    """Whatever breaks in the block ends it; `fail` is given the mark to look for in the log.

    But for the database's own failures: nothing can be written down then. What watches over the work, or the page that
    waits for it, has it begun again.
    """
    try:
        yield
    except DatabaseError:
        raise
    except Exception:
        mark = uuid4().hex[:8]
        logger.exception("%s failed (error %s)", what, mark)
        fail(mark)
