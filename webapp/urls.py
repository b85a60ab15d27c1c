"""Every address of the site; each app adds its own."""

from django.urls import include, path

from webapp.api import reference
from webapp.system import pages, views

urlpatterns = [
    path("", pages.home, name="home"),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("running/", pages.running, name="running"),
    path("machines/", pages.machines, name="machines"),
    path("", include("webapp.accounts.urls")),
    path("datasets/", include("webapp.datasets.urls")),
    path("", include("webapp.adapters.urls")),
    path("jobs/", include("webapp.jobs.urls")),
    path("chat/", include("webapp.chat.urls")),
    path("reference/", reference.reference, name="api_reference"),
    path("v1/openapi.json", reference.openapi, name="api_openapi"),
    path("v1/", include("webapp.api.urls")),
]
