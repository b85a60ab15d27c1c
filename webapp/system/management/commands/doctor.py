"""`manage.py doctor`: what this installation stands on, and what needs action."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from webapp.system.doctor import examine, report


class Command(BaseCommand):
    help = "Print what Lowrank stands on here, as a block to copy; ends with 1 when something needs action."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own way to say: look even when checks fail

    def handle(self, *args: Any, **options: Any) -> None:
        findings = examine()
        self.stdout.write(report(findings))
        if any(finding.fix for finding in findings):
            sys.exit(1)
