"""Pages of the chat, and what their buttons post."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts.access import TeamRequest, get_visible
from webapp.chat import services
from webapp.chat.forms import BeginForm, MessageForm, SettingsForm, initial_values, linked_keys, target_keys
from webapp.chat.live import turn_events
from webapp.chat.models import Conversation, Turn
from webapp.chat.sampling import Sampling
from webapp.chat.targets import chosen_targets
from webapp.common.errors import UserError
from webapp.common.http import sse_response

LISTED = 50


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def chat(request: TeamRequest) -> HttpResponse:
    """A new conversation; `?adapter=…&base=…` choose who answers. Its first question makes it."""
    if request.method == "POST":
        return _begin(request)
    form = SettingsForm(user=request.user)
    linked = linked_keys(request.GET.getlist("adapter"), request.GET.getlist("base"), form)
    form.initial = {**initial_values(Sampling()), "target": linked}
    return render(request, "chat/new.html", _frame(request) | {"form": form, "message_form": BeginForm()})


def _begin(request: TeamRequest) -> HttpResponse:
    form, message = SettingsForm(request.POST, user=request.user), BeginForm(request.POST)
    ctx = _frame(request) | {"form": form, "message_form": message}
    if not (form.is_valid() & message.is_valid()):
        return render(request, "chat/new.html", ctx, status=400)
    try:
        conversation = services.start_with_question(
            user=request.user,
            team=request.team,
            targets=form.cleaned_data["target"],
            message=message.cleaned_data["message"],
            system_prompt=form.cleaned_data["system_prompt"],
            sampling=form.sampling,
            form_key=message.cleaned_data["form_key"],
        )
    except UserError as error:
        return render(request, "chat/new.html", ctx | {"error": error}, status=error.status)
    return redirect("conversation", conversation.pk)


@login_required
@require_GET
def conversation(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(Conversation.objects.visible_to(request.user).select_related("base_model"), pk)
    page = _conversation_page(request, found, _settings_form(request, found))
    return render(request, "chat/conversation.html", page)


@login_required
@require_POST
def conversation_settings(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(Conversation.objects.visible_to(request.user).select_related("base_model"), pk)
    form = SettingsForm(request.POST, user=request.user)
    if not form.is_valid():
        return render(request, "chat/conversation.html", _conversation_page(request, found, form), status=400)
    services.change_settings(
        user=request.user,
        conversation=found,
        targets=form.cleaned_data["target"],
        system_prompt=form.cleaned_data["system_prompt"],
        sampling=form.sampling,
    )
    return redirect("conversation", found.pk)


@login_required
@require_POST
def conversation_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    services.delete_conversation(conversation=get_visible(Conversation.objects.visible_to(request.user), pk))
    return redirect("chat")


@login_required
@require_POST
def turn_new(request: TeamRequest, pk: UUID) -> HttpResponse:
    """Ask. The page's script gets the turn as a fragment and reads its stream; without a script the page loads anew."""
    found = get_visible(Conversation.objects.visible_to(request.user).select_related("base_model"), pk)
    form = MessageForm(request.POST)
    if not form.is_valid():
        return _refuse(request, found, form)
    turn = services.ask(user=request.user, conversation=found, message=form.cleaned_data["message"])
    return _turn(request, turn)


@login_required
@require_POST
def turn_retry(request: TeamRequest, pk: UUID) -> HttpResponse:
    """Ask the last question again: of everyone, or with `only=failed` where it failed."""
    turn = get_visible(Turn.objects.visible_to(request.user).select_related("conversation__base_model"), pk)
    services.ask_again(user=request.user, turn=turn, only_failed=request.POST.get("only") == "failed")
    return _turn(request, turn)


@login_required
@require_POST
def turn_stop(request: TeamRequest, pk: UUID) -> HttpResponse:
    turn = get_visible(Turn.objects.visible_to(request.user), pk)
    services.stop_turn(turn=turn)
    return HttpResponse(status=204) if _by_script(request) else redirect("conversation", turn.conversation_id)


@login_required
@require_GET
def turn_stream(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    turn = get_visible(Turn.objects.visible_to(request.user), pk)
    return sse_response(request, turn_events(request.user, turn, after=request.headers.get("Last-Event-ID", "")))


def _refuse(request: TeamRequest, found: Conversation, message: MessageForm) -> HttpResponse:
    if _by_script(request):
        return render(request, "chat/_message_errors.html", {"form": message}, status=400)
    page = _conversation_page(request, found, _settings_form(request, found))
    return render(request, "chat/conversation.html", page | {"message_form": message}, status=400)


def _settings_form(request: TeamRequest, found: Conversation) -> SettingsForm:
    chosen = target_keys(chosen_targets(found, request.user))
    initial = initial_values(Sampling.stored(found.sampling)) | {"system_prompt": found.system_prompt}
    return SettingsForm(user=request.user, initial={**initial, "target": chosen})


def _turn(request: TeamRequest, turn: Turn) -> HttpResponse:
    if not _by_script(request):
        return redirect("conversation", turn.conversation_id)
    fresh = Turn.objects.prefetch_related("completions__adapter").get(pk=turn.pk)
    return render(request, "chat/_turn.html", {"turn": fresh})


def _by_script(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def _frame(request: TeamRequest) -> dict[str, object]:
    """What stands beside every chat: the person's conversations in this team."""
    return {"conversations": _listed(request)}


def _listed(request: TeamRequest) -> QuerySet[Conversation]:
    return Conversation.objects.visible_to(request.user).filter(team=request.team)[:LISTED]


def _conversation_page(request: TeamRequest, found: Conversation, form: SettingsForm) -> dict[str, object]:
    return _frame(request) | {
        "conversation": found,
        "turns": found.turns.prefetch_related("completions__adapter"),
        "targets": chosen_targets(found, request.user),
        "form": form,
        "message_form": MessageForm(),
    }
