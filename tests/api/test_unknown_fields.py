"""Fields that nobody knows are refused by name wherever a body is read; those of the official client are known."""

import typing
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from openai.types import batch_create_params, completion_create_params, upload_complete_params, upload_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.fine_tuning import job_create_params
from openai.types.fine_tuning.checkpoints import permission_create_params

from tests.api.test_permissions import TABLE, Form
from tests.test_permission_matrix import World
from webapp.accounts import keys
from webapp.api import chat_request, completions_request, jobs_asked
from webapp.api.endpoints import GROUPS
from webapp.api.openapi import document

SCHEMAS: dict[str, Any] = document("http://x/v1")["components"]["schemas"]
CALLS = {key: one for found in GROUPS.values() for key, one in found.items() if one.takes}
NEAR = {
    "api_files": ("purpos", "purpose"),
    "api_uploads": ("filname", "filename"),
    "api_upload_parts": ("dta", "data"),
    "api_upload_complete": ("part_id", "part_ids"),
    "api_adapters": ("base_modell", "base_model"),
    "api_jobs": ("validation_fle", "validation_file"),
    "api_permissions": ("project_id", "project_ids"),
    "api_chat_completions": ("max_completion_token", "max_completion_tokens"),
    "api_completions": ("temprature", "temperature"),
    "api_batches": ("completion_windw", "completion_window"),
}
OFFICIAL = {
    "api_uploads": upload_create_params.UploadCreateParams,
    "api_upload_complete": upload_complete_params.UploadCompleteParams,
    "api_jobs": job_create_params.JobCreateParams,
    "api_permissions": permission_create_params.PermissionCreateParams,
    "api_chat_completions": chat_create_params.CompletionCreateParamsStreaming,
    "api_completions": completion_create_params.CompletionCreateParamsStreaming,
    "api_batches": batch_create_params.BatchCreateParams,
}


def post(world: World, name: str, more: dict[str, Any]) -> dict[str, Any]:
    """The error that this address answers with to a good body and these fields."""
    _, path, good = TABLE[name, "POST"]
    good = good(world) if callable(good) else good
    assert good is not None
    headers = {"Authorization": f"Bearer {keys.create(user=world.cast.bob, name='script')}"}
    sent: dict[str, Any] = {"data": good | more, "content_type": "application/json"}
    if isinstance(good, Form):
        sent = {"data": {key: value() if callable(value) else value for key, value in (good | more).items()}}
    answer = Client().post(f"/v1/{path(world)}", headers=headers, **sent)
    error: dict[str, Any] = answer.json().get("error") or {}
    assert answer.status_code == 400 or error.get("code") != "unknown_parameter"
    return error


def test_all_addresses_that_take_a_body_are_here() -> None:
    assert set(NEAR) == {name for name, _ in CALLS}


@pytest.mark.parametrize("name", sorted(NEAR))
def test_a_misspelt_field_is_refused_with_the_right_one(world: World, name: str) -> None:
    wrong, right = NEAR[name]
    error = post(world, name, {wrong: "1"})
    assert (error["code"], error["param"]) == ("unknown_parameter", wrong)
    assert error["message"] == f"Unknown parameter: '{wrong}'. Did you mean '{right}'?"


def test_a_file_under_an_unknown_name_is_refused_too(world: World) -> None:
    error = post(world, "api_files", {"second": SimpleUploadedFile("b.bin", b"y")})
    assert (error["code"], error["param"]) == ("unknown_parameter", "second")


@pytest.mark.parametrize("name", sorted(NEAR))
def test_what_is_like_nothing_is_refused_alone(world: World, name: str) -> None:
    message = post(world, name, {"xyzzy": "1"})["message"]
    assert message.startswith("Unknown parameter: 'xyzzy'.") and "Did you mean" not in message


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("api_chat_completions", "stream_options.include_usag", {"stream_options": {"include_usag": True}}),
        ("api_jobs", "method.supervised.epochs", {"method": {"type": "supervised", "supervised": {"epochs": 1}}}),
        ("api_jobs", "hyperparameters.n_epoch", {"hyperparameters": {"n_epoch": 1}}),
        ("api_uploads", "expires_after.second", {"expires_after": {"anchor": "created_at", "second": 3600}}),
    ],
)
def test_one_inside_another_is_told_by_its_path(world: World, name: str, field: str, value: dict[str, Any]) -> None:
    if name == "api_chat_completions":
        value |= {"model": world.base.name, "messages": [{"role": "user", "content": "cat"}]}
    error = post(world, name, value)
    assert (error["code"], error["param"]) == ("unknown_parameter", field)


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_every_field_of_the_official_client_is_known(world: World, name: str) -> None:
    for field in typing.get_type_hints(OFFICIAL[name]):
        assert post(world, name, {field: {}}).get("code") != "unknown_parameter", field


@pytest.mark.parametrize("name", sorted(NEAR))
def test_null_counts_as_not_sent(world: World, name: str) -> None:
    if not isinstance(TABLE[name, "POST"][2], Form):
        assert post(world, name, {"xyzzy": None}).get("code") != "unknown_parameter"


def test_the_document_has_the_fields_that_are_known() -> None:
    around = set(chat_request.IGNORED)
    assert set(SCHEMAS["ChatRequest"]["properties"]) == {*chat_request.FIELDS, *around}
    assert set(SCHEMAS["CompletionRequest"]["properties"]) == {*completions_request.FIELDS, *around}
    assert set(SCHEMAS["NewJob"]["properties"]) == set(jobs_asked.FIELDS)
    for key, call in CALLS.items():
        assert SCHEMAS[call.takes]["additionalProperties"] is False, key
