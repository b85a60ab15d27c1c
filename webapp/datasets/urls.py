"""Addresses of the app `datasets`."""

from django.urls import path

from webapp.datasets import views

urlpatterns = [
    path("", views.datasets, name="datasets"),
    path("new/", views.dataset_new, name="dataset_new"),
    path("sample/", views.dataset_sample, name="dataset_sample"),
    path("<uuid:pk>/", views.dataset, name="dataset"),
    path("<uuid:pk>/new-version/", views.dataset_version_new, name="dataset_version_new"),
    path("<uuid:pk>/delete/", views.dataset_delete, name="dataset_delete"),
    path("versions/<uuid:pk>/download/", views.dataset_download, name="dataset_download"),
    path("versions/<uuid:pk>/skip-bad-rows/", views.dataset_skip_bad_rows, name="dataset_skip_bad_rows"),
]
