"""The ASGI application that gunicorn serves."""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application

from webapp.common.body_limit import FORM_OVERHEAD, limit_body

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

application = limit_body(get_asgi_application(), settings.MAX_UPLOAD_BYTES + FORM_OVERHEAD)
