"""Pages about adapters: the library, one adapter, and what its team does with it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.access import TeamRequest, get_visible, get_with_role, require_role
from webapp.accounts.models import Role, Team
from webapp.adapters import services
from webapp.adapters.archive import archive_name, require_intact, zip_pieces
from webapp.adapters.forms import AdapterNameForm, ShareForm
from webapp.adapters.models import Adapter, Share
from webapp.adapters.plain_words import files_of, spec_groups
from webapp.adapters.specs import spec_yaml
from webapp.common.http import attachment_response, in_threads

TABS = {"overview": "Overview", "use": "Use it", "spec": "Spec", "files": "Files", "share": "Share"}


@login_required
@require_safe
def adapters(request: TeamRequest) -> HttpResponse:
    rows = Adapter.objects.visible_to(request.user).listed_in(request.team).order_by("-created_at")
    listed = rows.select_related("team", "base_model", "dataset_version__dataset", "created_by")
    ctx = {"adapters": listed.prefetch_related("shares__team")}
    return render(request, "adapters/list.html", ctx)


@login_required
@require_safe
def adapter(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(_rows(request), pk)
    return render(request, "adapters/detail.html", _detail_ctx(request, found))


def _rows(request: TeamRequest) -> Any:
    rows = Adapter.objects.visible_to(request.user)
    return rows.select_related("team", "base_model", "dataset_version__dataset", "created_by", "of")


def _detail_ctx(request: TeamRequest, found: Adapter, *, tab: str = "", **forms: Any) -> dict[str, Any]:
    """The head, and what the open tab shows. Where it comes from and who else has it is for its own team."""
    role = found.team.role_of(request.user)
    tabs = {name: label for name, label in TABS.items() if role or name != "share"}
    tab = tab or request.GET.get("tab", "")
    ctx = {
        "adapter": found,
        "tabs": tabs,
        "tab": tab if tab in tabs else "overview",
        "is_own": role is not None,
        "can_change": role is not None and role.includes(Role.MEMBER),
        "job": getattr(found, "job", None) if role else None,
        "checkpoints": _rows(request).filter(of=found).order_by("step"),
        "shares": found.shares.select_related("team", "created_by") if role else [],
        "rename_form": AdapterNameForm(initial={"name": found.name}),
        "share_form": ShareForm(),
        "share_teams": Team.objects.visible_to(request.user).exclude(pk=found.team_id),
        "spec_groups": spec_groups(found.spec),
        "spec_yaml": spec_yaml(found, with_rows=role is not None),
        "files": files_of(found),
    }
    return ctx | forms


@login_required
@require_safe
def adapter_download(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    found = get_visible(_rows(request), pk)
    require_intact(found)
    name = archive_name(found)
    pieces = in_threads(zip_pieces(found.folder, name))
    return attachment_response(pieces, name=f"{name}.zip", content_type="application/zip")


@login_required
@require_POST
def adapter_rename(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(_rows(request), pk, request.user)
    form = AdapterNameForm(request.POST)
    if not form.is_valid():
        ctx = _detail_ctx(request, found, rename_form=form)
        return render(request, "adapters/detail.html", ctx, status=422)
    services.rename_adapter(adapter=found, name=form.cleaned_data["name"], actor=request.user, request=request)
    return redirect("adapter", found.pk)


@login_required
@require_POST
def adapter_share(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(_rows(request), pk, request.user)
    form = ShareForm(request.POST)
    if not form.is_valid():
        ctx = _detail_ctx(request, found, tab="share", share_form=form)
        return render(request, "adapters/detail.html", ctx, status=422)
    team = form.cleaned_data["found"]
    services.share_adapter(adapter=found, team=team, actor=request.user, request=request)
    messages.success(request, f"{found.name} is shared with {team or 'everyone on this server'}.")
    return redirect(f"{found.get_absolute_url()}?tab=share")


@login_required
@require_POST
def adapter_unshare(request: TeamRequest, pk: UUID) -> HttpResponse:
    share = get_visible(Share.objects.visible_to(request.user).select_related("adapter__team", "team"), pk)
    require_role(share.adapter.team, request.user, Role.MEMBER)
    services.unshare_adapter(share=share, actor=request.user, request=request)
    messages.success(request, f"{share.adapter.name} is no longer shared with {share.team or 'everyone'}.")
    return redirect(f"{share.adapter.get_absolute_url()}?tab=share")


@login_required
@require_POST
def adapter_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(_rows(request), pk, request.user)
    services.delete_adapter(adapter=found, actor=request.user, request=request)
    messages.success(request, f"{found.name} was deleted.")
    return redirect("adapters")
