"""Addresses below /v1, without the trailing slash; border.py takes one off where it was sent."""

from django.urls import path

from webapp.api import model_list
from webapp.api.entry import door

urlpatterns = [
    path("models", door(GET=model_list.list_models), name="api_models"),
    path("models/<path:model>", door(GET=model_list.show_model, DELETE=model_list.delete_model), name="api_model"),
    # files and uploads
    # fine-tuning jobs
    # chat and batches
]
