"""`manage.py create_api_key --email E [--name N]`: prints a new key, and nothing else, on stdout."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webapp.accounts import keys
from webapp.accounts.models import User


class Command(BaseCommand):
    help = "Print a new API key of a person, for scripts. It can be read this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--email", required=True, help="whose key it is")
        parser.add_argument("--name", default="command line", help="what the list of keys calls it")

    def handle(self, *args: Any, email: str, name: str, **options: Any) -> None:
        user = User.objects.filter(email=email.strip().lower(), is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody here has the e-mail address {email}.")
        if not 0 < len(name.strip()) <= 80:
            raise CommandError("A key's name has 1 to 80 characters.")
        self.stdout.write(keys.create(user=user, name=name.strip()))
