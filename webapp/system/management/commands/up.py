"""`manage.py up`: everything on this machine."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.system.supervise import Log
from webapp.system.up import CannotStart, up


class Command(BaseCommand):
    help = "Start web, workers, scheduler and the embedded broker, and keep them running until Ctrl-C."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up(Log(sys.stdout))
        except CannotStart as error:
            raise CommandError(str(error)) from error
