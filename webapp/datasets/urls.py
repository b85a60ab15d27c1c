"""Addresses of the app `datasets`."""

from django.urls import path

from webapp.datasets import tus_views, upload_views, views

urlpatterns = [
    path("", views.datasets, name="datasets"),
    path("new/", upload_views.dataset_new, name="dataset_new"),
    path("new/copy/", upload_views.dataset_copy, name="dataset_copy"),
    path("new/hub/", upload_views.dataset_hub, name="dataset_hub"),
    path("uploads/", tus_views.upload_new, name="upload_new"),
    path("uploads/<uuid:pk>/", tus_views.upload, name="upload"),
    path("sample/", upload_views.dataset_sample, name="dataset_sample"),
    path("<uuid:pk>/", views.dataset, name="dataset"),
    path("<uuid:pk>/new-version/", upload_views.dataset_version_new, name="dataset_version_new"),
    path("<uuid:pk>/delete/", views.dataset_delete, name="dataset_delete"),
    path("versions/<uuid:pk>/download/", views.dataset_download, name="dataset_download"),
    path("versions/<uuid:pk>/skip-bad-rows/", upload_views.dataset_skip_bad_rows, name="dataset_skip_bad_rows"),
]
