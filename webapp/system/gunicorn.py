"""How gunicorn serves the site; it reads this file as its configuration."""

import os
import signal
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

from django.conf import settings  # noqa: E402 - the line above tells Django where its settings are

from webapp.system.tether import die_with  # noqa: E402

bind = f"[{settings.HOST}]:{settings.PORT}" if ":" in settings.HOST else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "asgi"  # a stream costs no thread; the sync worker would cut it at the timeout
asgi_lifespan = "off"  # Django has none
timeout = 30
graceful_timeout = 3  # event streams are open for minutes, and a browser resumes them where they broke
keepalive = 5
control_socket_disable = True
forwarded_allow_ips = "*" if settings.BEHIND_PROXY else "127.0.0.1,::1"
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the heartbeat file, never on a slow disk
logconfig_dict = {
    **settings.LOGGING,
    "loggers": {
        "gunicorn.error": {
            "level": "WARNING",
            "handlers": ["stderr"],
            "filters": ["without_heads"],
            "propagate": False,
        },
        "gunicorn.access": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
    },
}


def post_fork(server: Any, worker: Any) -> None:
    """A worker ends with its master, even when the master is killed."""
    die_with(server.pid, signal.SIGKILL)
