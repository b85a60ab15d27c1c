"""The Django app `system`."""

from django.apps import AppConfig


class SystemConfig(AppConfig):
    name = "webapp.system"
    label = "system"
