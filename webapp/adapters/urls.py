"""Addresses of the app `adapters`: adapters, and the base models under them."""

from django.urls import path

from webapp.adapters import base_views, importing_views, seen_views, token_views, views

urlpatterns = [
    path("adapters/", views.adapters, name="adapters"),
    path("adapters/import/", importing_views.adapter_import, name="adapter_import"),
    path("adapters/<uuid:pk>/", views.adapter, name="adapter"),
    path("adapters/<uuid:pk>/download/", views.adapter_download, name="adapter_download"),
    path("adapters/<uuid:pk>/share/", views.adapter_share, name="adapter_share"),
    path("adapters/<uuid:pk>/rename/", views.adapter_rename, name="adapter_rename"),
    path("adapters/<uuid:pk>/delete/", views.adapter_delete, name="adapter_delete"),
    path("adapters/shares/<uuid:pk>/remove/", views.adapter_unshare, name="adapter_unshare"),
    path("datasets/versions/<uuid:pk>/mapping/tokens/", seen_views.mapping_tokens, name="mapping_tokens"),
    path("datasets/versions/<uuid:pk>/seen/", token_views.version_seen, name="version_seen"),
    path("datasets/versions/<uuid:pk>/seen/tokens/", token_views.version_tokens, name="version_tokens"),
    path("models/", base_views.base_models, name="base_models"),
    path("models/add/", base_views.base_add, name="base_add"),
    path("models/<uuid:pk>/", base_views.base_model, name="base_model"),
    path("models/<uuid:pk>/status/", base_views.base_status, name="base_status"),
    path("models/<uuid:pk>/retry/", base_views.base_retry, name="base_retry"),
    path("models/<uuid:pk>/delete/", base_views.base_delete, name="base_delete"),
]
