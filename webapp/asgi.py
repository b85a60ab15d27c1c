"""The ASGI application that gunicorn serves."""

import os
import tempfile

from django.conf import settings
from django.core.asgi import get_asgi_application

from webapp.common.body_limit import Limits, limit_body
from webapp.common.request_threads import on_kept_threads

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

# Django spools a body in flight to the default place for temporary files, whatever FILE_UPLOAD_TEMP_DIR says.
tempfile.tempdir = str(settings.FILE_UPLOAD_TEMP_DIR)

application = on_kept_threads(
    limit_body(
        get_asgi_application(),
        Limits(
            form=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
            upload=settings.MAX_UPLOAD_BYTES,
            upload_pages=(
                "dataset_new",
                "dataset_version_new",
                "upload",
                "api_files",
                "api_upload_parts",
                "adapter_import",
                "api_adapters",
            ),
            user_of="webapp.accounts.keys.user_of",
        ),
    )
)
