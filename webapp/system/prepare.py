"""What must be done once before a start: the database's tables, the static files, the first owner, the demo model."""

import hashlib
from pathlib import Path

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from webapp.accounts.services import create_owner_from_environment
from webapp.adapters.services import ensure_demo_model


def migrate() -> int:
    """Bring the tables up to date; returns how many migrations that took."""
    try:
        connection.ensure_connection()
    except OperationalError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ImproperlyConfigured(f"the database does not answer: {reason}. Look at DATABASE_URL.") from error
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        call_command("migrate", interactive=False, verbosity=0)
    return len(waiting)


def collect_static() -> bool:
    """Hash and compress the static files, when any of them changed since the last time."""
    mark = Path(settings.STATIC_ROOT) / ".collected"
    state = static_state()
    if mark.is_file() and mark.read_text() == state:
        return False
    call_command("collectstatic", interactive=False, clear=Path(settings.STATIC_ROOT).is_dir(), verbosity=0)
    mark.write_text(state)
    return True


def static_state() -> str:
    """A hash of the name, size and age of every static file."""
    seen = hashlib.sha256(django.get_version().encode())
    for finder in get_finders():
        for name, storage in finder.list([]):
            found = Path(storage.path(name)).stat()
            seen.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def create_first_things() -> None:
    """The owner that the environment names, and the demo model's row with the doorbell that has it fetched."""
    create_owner_from_environment()
    if settings.DEMO_MODEL:
        ensure_demo_model()
