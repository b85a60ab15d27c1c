"""Addresses below /v1, without the trailing slash; border.py takes one off where it was sent."""

from django.urls import path

from webapp.api import adapters, batches, chat, completions, files, jobs, model_list, permissions, uploads
from webapp.api.entry import door

urlpatterns = [
    path("models", door(GET=model_list.list_models), name="api_models"),
    path("models/<path:model>", door(GET=model_list.show_model, DELETE=model_list.delete_model), name="api_model"),
    path("adapters", door(POST=adapters.create), name="api_adapters"),
    path("adapters/<str:model>/content", door(GET=adapters.content), name="api_adapter_content"),
    path("files", door(GET=files.list_files, POST=files.create), name="api_files"),
    path("files/<str:file>", door(GET=files.show, DELETE=files.delete), name="api_file"),
    path("files/<str:file>/content", door(GET=files.content), name="api_file_content"),
    path("uploads", door(POST=uploads.create), name="api_uploads"),
    path("uploads/<str:upload>/parts", door(POST=uploads.add_part), name="api_upload_parts"),
    path("uploads/<str:upload>/complete", door(POST=uploads.complete), name="api_upload_complete"),
    path("uploads/<str:upload>/cancel", door(POST=uploads.cancel), name="api_upload_cancel"),
    path("fine_tuning/jobs", door(GET=jobs.list_jobs, POST=jobs.create), name="api_jobs"),
    path("fine_tuning/jobs/<str:job>", door(GET=jobs.show), name="api_job"),
    path("fine_tuning/jobs/<str:job>/cancel", door(POST=jobs.cancel), name="api_job_cancel"),
    path("fine_tuning/jobs/<str:job>/pause", door(POST=jobs.pause), name="api_job_pause"),
    path("fine_tuning/jobs/<str:job>/resume", door(POST=jobs.resume), name="api_job_resume"),
    path("fine_tuning/jobs/<str:job>/events", door(GET=jobs.list_events), name="api_job_events"),
    path("fine_tuning/jobs/<str:job>/checkpoints", door(GET=jobs.list_checkpoints), name="api_job_checkpoints"),
    path(
        "fine_tuning/checkpoints/<path:checkpoint>/permissions",
        door(GET=permissions.list_permissions, POST=permissions.create),
        name="api_permissions",
    ),
    path(
        "fine_tuning/checkpoints/<path:checkpoint>/permissions/<str:permission>",
        door(DELETE=permissions.delete),
        name="api_permission",
    ),
    path("chat/completions", door(POST=chat.create), name="api_chat_completions"),
    path("completions", door(POST=completions.create), name="api_completions"),
    path("batches", door(GET=batches.list_batches, POST=batches.create), name="api_batches"),
    path("batches/<str:batch>", door(GET=batches.show), name="api_batch"),
    path("batches/<str:batch>/cancel", door(POST=batches.cancel), name="api_batch_cancel"),
]
