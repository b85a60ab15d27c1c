"""Who else may use a checkpoint: /v1/fine_tuning/checkpoints/…/permissions are shares with teams."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse

from webapp.accounts.access import get_visible, require_role
from webapp.accounts.models import Role, Team
from webapp.adapters.models import Adapter, Share, ShareQuerySet
from webapp.adapters.services import share_adapter, unshare_adapter
from webapp.api.auth import ApiRequest
from webapp.api.fields import Fields, json_body
from webapp.api.names import CHECKPOINT, PERMISSION, find_model, model_not_found, uuid_of, wire_id
from webapp.api.paging import asked, page_of
from webapp.api.wire import deleted, from_user_error, listing, timestamp
from webapp.common.errors import UserError

KIND = "checkpoint.permission"
EVERYONE = "*"  # in place of a team's slug: all on this server
MOST_TEAMS = 100


def list_permissions(request: ApiRequest, checkpoint: str) -> HttpResponse:
    page = asked(request, usual=10)
    rows = _shares(request, _own(request, checkpoint, Role.VIEWER))
    if slug := request.GET.get("project_id", ""):
        rows = rows.filter(team=None) if slug == EVERYONE else rows.filter(team__slug=slug.replace("\x00", ""))
    found, has_more = page_of(rows, page, lambda wire: uuid_of(wire, PERMISSION))
    return listing([_permission(share) for share in found], has_more=has_more)


def create(request: ApiRequest, checkpoint: str) -> HttpResponse:
    adapter = _own(request, checkpoint, Role.MEMBER)
    teams = _teams(json_body(request))
    with transaction.atomic():
        try:
            made = [share_adapter(adapter=adapter, team=team, actor=request.user, request=request) for team in teams]
        except UserError as error:
            raise from_user_error(error, param="project_ids") from error
    return listing([_permission(share) for share in made])


def delete(request: ApiRequest, checkpoint: str, permission: str) -> HttpResponse:
    adapter = _own(request, checkpoint, Role.MEMBER)
    share = get_visible(_shares(request, adapter), uuid_of(permission, PERMISSION) or UUID(int=0))
    unshare_adapter(share=share, actor=request.user, request=request)
    return deleted(permission, KIND)


def _own(request: ApiRequest, checkpoint: str, role: Role) -> Adapter:
    """The checkpoint by its id or by its model name, as one who has this role in its team."""
    pk = uuid_of(checkpoint, CHECKPOINT)
    rows = Adapter.objects.visible_to(request.user).select_related("team")
    found = rows.filter(pk=pk).first() if pk else find_model(request.user, request.team, checkpoint).adapter
    if found is None:
        raise model_not_found(checkpoint)
    require_role(found.team, request.user, role)
    return found


def _shares(request: ApiRequest, adapter: Adapter) -> ShareQuerySet:
    return Share.objects.visible_to(request.user).filter(adapter=adapter).select_related("team", "adapter__team")


def _teams(body: Fields) -> list[Team | None]:
    """The teams that `project_ids` names; all of them are there, or none gets it."""
    body.only("project_ids")
    slugs = body.items("project_ids")
    if not slugs or len(slugs) > MOST_TEAMS:
        body.bad("project_ids", f"must name from 1 to {MOST_TEAMS} teams")
    return [_team(body, slug) for slug in slugs]


def _team(body: Fields, slug: Any) -> Team | None:
    if slug == EVERYONE:
        return None
    team = Team.objects.filter(slug=slug).first() if isinstance(slug, str) else None
    if team is None:
        body.bad("project_ids", f"names no team {str(slug)[:80]!r}; give slugs, as in the address of a team's page")
    return team


def _permission(share: Share) -> dict[str, Any]:
    ids = {"id": wire_id(PERMISSION, share.pk), "object": KIND}
    return {**ids, "created_at": timestamp(share.created_at), "project_id": share.team.slug if share.team else EVERYONE}
