"""Settings of the tests: a data folder of their own, fast hashing, and the same everything else."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_folder = tempfile.mkdtemp(prefix="lowrank-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ["DATA_DIR"] = _folder
os.environ.setdefault("SECRET_KEY", "tests-only-" + "x" * 50)

from webapp.settings import *  # noqa: E402,F403 - DATA_DIR must be set first

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CACHES = {"default": {"BACKEND": "tests.json_cache.JsonLocMemCache"}}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":  # noqa: F405
    # A file and not memory: threads contend for it as in production, and real processes can open it too.
    DATABASES["default"]["TEST"] = {"NAME": str(Path(_folder) / "tests.sqlite3")}  # noqa: F405
# A doorbell in a unit test rings nowhere; tests that need workers start real ones (tests/processes.py).
CELERY_BROKER_URL = "memory://"
API_REQUESTS_PER_MINUTE = 0
DATA_DIR = Path(_folder)
STATIC_ROOT.mkdir(exist_ok=True)  # noqa: F405 - its absence would be a warning in every test
