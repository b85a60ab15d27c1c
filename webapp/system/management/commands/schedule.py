"""`manage.py schedule`: the scheduler, on machines that run it apart."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from webapp.system import scheduler


class Command(BaseCommand):
    help = "Look every few seconds for lost and waiting work, until stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        scheduler.run(stopping)
