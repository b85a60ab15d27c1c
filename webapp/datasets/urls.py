"""Addresses of the app `datasets`."""

from django.urls import path

from webapp.datasets import draft_views, mapping_views, row_views, tus_views, upload_views, version_views, views

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
    path("versions/<uuid:pk>/rows/", row_views.dataset_rows, name="dataset_rows"),
    path("versions/<uuid:pk>/rows/<int:number>/", row_views.row, name="row"),
    path("versions/<uuid:pk>/marks/", row_views.row_marks_change, name="row_marks"),
    path("versions/<uuid:pk>/export/", row_views.version_export, name="version_export"),
    path("versions/<uuid:pk>/download/", views.dataset_download, name="dataset_download"),
    path("versions/<uuid:pk>/mapping/", mapping_views.dataset_mapping, name="dataset_mapping"),
    path("versions/<uuid:pk>/errors/", mapping_views.version_errors, name="version_errors"),
    path("versions/<uuid:pk>/bad-lines/", mapping_views.version_bad_lines, name="version_bad_lines"),
    path("versions/<uuid:pk>/skip-bad-rows/", upload_views.dataset_skip_bad_rows, name="dataset_skip_bad_rows"),
    path("versions/<uuid:pk>/diff/", version_views.version_diff, name="version_diff"),
    path("versions/<uuid:pk>/restore/", version_views.version_restore, name="version_restore"),
    path("versions/<uuid:pk>/delete/", version_views.version_delete, name="version_delete"),
    path("versions/<uuid:pk>/split/", version_views.split_new, name="split_new"),
    path("versions/<uuid:pk>/rows/<int:number>/edit/", draft_views.row_edit, name="row_edit"),
    path("versions/<uuid:pk>/rows/new/", draft_views.row_add, name="row_add"),
    path("versions/<uuid:pk>/draft/", draft_views.draft, name="draft"),
    path("versions/<uuid:pk>/draft/remove/", draft_views.draft_remove, name="draft_remove"),
    path("versions/<uuid:pk>/draft/save/", draft_views.draft_save, name="draft_save"),
    path("versions/<uuid:pk>/draft/discard/", draft_views.draft_discard, name="draft_discard"),
    path("draft-rows/<uuid:pk>/", draft_views.draft_row, name="draft_row"),
    path("draft-rows/<uuid:pk>/undo/", draft_views.draft_undo, name="draft_undo"),
]
