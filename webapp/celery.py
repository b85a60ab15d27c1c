"""The Celery application. A message is a doorbell: the truth lies in the database, so losing one loses nothing."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

app = Celery("lowrank")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
