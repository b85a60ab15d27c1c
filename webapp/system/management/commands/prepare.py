"""`manage.py prepare`: what must be done once before web and workers start, on machines that run them apart."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from webapp.accounts.services import setup_link
from webapp.system import prepare


class Command(BaseCommand):
    help = "Migrate, collect static files, create the owner that the environment names, and ask for the demo model."

    def handle(self, *args: Any, **options: Any) -> None:
        applied = prepare.migrate()
        self.stdout.write(f"database up to date ({applied} migrations applied)")
        prepare.collect_static()
        self.stdout.write("static files up to date")
        prepare.create_first_things()
        if link := setup_link():
            self.stdout.write(f"Create the owner's account, once: {settings.BASE_URL}{link}")
