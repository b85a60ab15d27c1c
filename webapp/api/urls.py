"""Addresses below /v1, without the trailing slash; border.py takes one off where it was sent."""

from django.urls import path

from webapp.api import files, model_list, uploads
from webapp.api.entry import door

urlpatterns = [
    path("models", door(GET=model_list.list_models), name="api_models"),
    path("models/<path:model>", door(GET=model_list.show_model, DELETE=model_list.delete_model), name="api_model"),
    path("files", door(GET=files.list_files, POST=files.create), name="api_files"),
    path("files/<str:file>", door(GET=files.show, DELETE=files.delete), name="api_file"),
    path("files/<str:file>/content", door(GET=files.content), name="api_file_content"),
    path("uploads", door(POST=uploads.create), name="api_uploads"),
    path("uploads/<str:upload>/parts", door(POST=uploads.add_part), name="api_upload_parts"),
    path("uploads/<str:upload>/complete", door(POST=uploads.complete), name="api_upload_complete"),
    path("uploads/<str:upload>/cancel", door(POST=uploads.cancel), name="api_upload_cancel"),
    # fine-tuning jobs
    # chat and batches
]
