"""/v1/models: base models, and the adapters that the request's team may use."""

from typing import Any
from uuid import UUID

from django.db.models import prefetch_related_objects
from django.http import HttpResponse, JsonResponse

from webapp.accounts.access import require_role
from webapp.accounts.models import Role, Team
from webapp.adapters.models import Adapter, BaseModel
from webapp.adapters.services import delete_adapter
from webapp.api.auth import ApiRequest
from webapp.api.names import FOR_NAMES, adapter_name, base_names, find_model, ready_bases, slug_of
from webapp.api.wire import ApiError, deleted, listing, timestamp

SERVER = "lowrank"  # who owns a base model
SHOWN = ("name", "created_at", "step", "team", "base_model", "of")


def list_models(request: ApiRequest) -> HttpResponse:
    bases = ready_bases()
    names = base_names(bases)
    adapters = _with_names(list(Adapter.objects.usable_in(request.team).only(*SHOWN)), request.team, bases)
    return listing([*(_of_base(base, names) for base in bases), *(_of_adapter(adapter, names) for adapter in adapters)])


def show_model(request: ApiRequest, model: str) -> HttpResponse:
    found = find_model(request.user, request.team, model)
    names = base_names(ready_bases())
    return JsonResponse(_of_adapter(found.adapter, names) if found.adapter else _of_base(found.base, names))


def delete_model(request: ApiRequest, model: str) -> HttpResponse:
    found = find_model(request.user, request.team, model)
    if found.adapter is None:
        raise ApiError(403, "Base models are the server owner's to remove.", param="model", code="base_model")
    if found.adapter.team.role_of(request.user) is None:
        raise ApiError(403, "This adapter is another team's, shared with you.", param="model", code="shared_model")
    require_role(found.adapter.team, request.user, Role.MEMBER)
    name = adapter_name(found.adapter)
    delete_adapter(adapter=found.adapter, actor=request.user, request=request)
    return deleted(name, "model")


def _with_names(adapters: list[Adapter], team: Team, bases: list[BaseModel]) -> list[Adapter]:
    """What their names are made of, taken from what is here already: scripts ask for this list all the time."""
    here, finals = {base.pk: base for base in bases}, {one.pk: one for one in adapters}
    for adapter in adapters:
        if adapter.of_id and (final := finals.get(adapter.of_id)):  # a checkpoint's own adapter
            adapter.of = final
        if adapter.team_id == team.pk:
            adapter.team = team
        if base := here.get(adapter.base_model_id):
            adapter.base_model = base
    prefetch_related_objects(adapters, "team", "base_model")  # the rest, each once
    prefetch_related_objects([adapter for adapter in adapters if adapter.of_id], *FOR_NAMES)
    return adapters


def _of_base(base: BaseModel, names: dict[UUID, str]) -> dict[str, Any]:
    facts = {"created": timestamp(base.created_at), "owned_by": SERVER, "parent": None, "root": base.name}
    return {"id": names[base.pk], "object": "model", **facts}


def _of_adapter(adapter: Adapter, names: dict[UUID, str]) -> dict[str, Any]:
    """`parent` is the base model's id; `root` the name that it has on the pages."""
    base = adapter.base_model
    facts = {"created": timestamp(adapter.created_at), "owned_by": adapter.team.slug}
    parents = {"parent": names.get(base.pk, slug_of(base.name)), "root": base.name}
    return {"id": adapter_name(adapter), "object": "model", **facts, **parents}
