"""Who may do what: every address, every person, every method. An address that is not in the table fails by its name."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from tests import make
from tests.cast import Cast, make_cast
from tests.tiny import make_tiny_base
from webapp.accounts.models import Role
from webapp.datasets.models import Upload
from webapp.jobs.models import JobStatus

# Answers are for: anonymous, charlie (a stranger), vera (viewer), bob (member), alice (owner). One word stands for all.
PEOPLE = ("anonymous", "charlie", "vera", "bob", "alice")
LOGIN = "login"  # sent to the login page
NOT_SO = "405"  # no such method here; who is not logged in may be sent to log in instead

PAGE = "login 200 200 200 200"  # of one's own team, so that charlie sees his
SEEN = "login 404 200 200 200"  # an object of the team
MEMBERS = "login 404 403 302 302"
OWNERS = "login 404 403 403 302"
HIS_TOO = "login 302 403 302 302"  # charlie owns the team he works in
STAFF = "login 403 403 403 403"  # nobody of the cast owns the server
MINE = "login 404 404 404 200"  # alice's own, and not her team's
MY_UPLOAD = "login 412 412 412 412"  # tests/datasets/test_upload_in_parts.py says who has which upload
MINE_POST = "login 404 404 404 302"


@functools.cache
def tiny_base() -> Path:
    """A base model whose chat template can be rendered."""
    return make_tiny_base(Path(settings.FILES_DIR) / "tiny")


@dataclass
class World:
    """One object of each kind, of the red team; what is personal is alice's."""

    cast: Cast

    def __post_init__(self) -> None:
        team, alice = self.cast.team, self.cast.alice
        self.dataset = make.make_dataset(team, created_by=alice)
        self.version = self.dataset.versions.get()
        self.change = make.make_added_row(self.version, alice)
        self.base = make.make_base(path=tiny_base())
        self.adapter = make.make_adapter(team, self.base)
        self.share = make.make_share(self.adapter, self.cast.bob.personal_team)
        self.job = make.make_job(team, version=self.version, base=self.base)
        make.make_attempt(self.job)
        self.lost_job = make.make_job(team, version=self.version, base=self.base, status=JobStatus.FAILED)
        self.free_dataset = make.make_dataset(team, name="not used by a job")
        self.spoilt = make.make_version(self.free_dataset)
        (self.spoilt.folder / "bad.jsonl").write_text('{"line": 1, "text": "x"}')
        self.upload = Upload.objects.create(user=alice, name="half.jsonl", size=100)
        self.conversation = make.make_conversation(team, alice, self.base)
        self.turn = make.make_turn(self.conversation)
        self.invitation = make.make_invitation(team, alice)
        self.key = make.make_api_key(alice)


Arguments = Callable[[World], list[Any]]


@dataclass(frozen=True)
class Row:
    """What GET and POST answer; `args` of the address, `data` of the POST."""

    get: str
    post: str = NOT_SO
    args: Arguments = lambda world: []
    data: Callable[[World], dict[str, Any]] = lambda world: {}
    patch: str = NOT_SO
    delete: str = NOT_SO


def of(name: str) -> Arguments:
    """The address of one object of the world."""
    return lambda world: [getattr(world, name).pk]


def team(world: World) -> list[Any]:
    return [world.cast.team.slug]


def member(world: World) -> list[Any]:
    return [world.cast.team.slug, world.cast.vera.pk]


def first_row(world: World) -> list[Any]:
    return [world.version.pk, 1]


def nothing_found(world: World) -> list[Any]:
    return [world.version.pk, "repeated"]


def named(world: World) -> dict[str, Any]:
    return {"name": "new name"}


def base_target(world: World) -> dict[str, Any]:
    sampling = {"temperature": "0", "top_p": "1", "max_tokens": "16", "seed": "0"}
    return {"target": f"base:{world.base.pk}", "message": "Hello", "system_prompt": ""} | sampling


TABLE = {
    # Open to all
    "healthz": Row("200"),
    "readyz": Row("503"),
    "api_openapi": Row("200"),
    "account_login": Row("200 302 302 302 302", "200 302 302 302 302"),
    "account_logout": Row("302 200 200 200 200", "302"),
    "account_signup": Row("200 302 302 302 302", "200 302 302 302 302"),
    "account_inactive": Row("200"),
    "account_reset_password": Row("200", "200"),
    "account_reset_password_done": Row("200"),
    "account_reset_password_from_key": Row("200", "200", lambda world: ["0", "key"]),
    "account_reset_password_from_key_done": Row("200"),
    "setup": Row("410", "410", lambda world: ["token"]),
    "invitation": Row("200", "422 302 302 302 302", lambda world: ["a" * 43]),
    # Oneself
    "account_change_password": Row(PAGE, PAGE),
    "account_set_password": Row("login 302 302 302 302", "login 302 302 302 302"),
    "settings": Row(PAGE, "login 302 302 302 302", data=named),
    "api_key_new": Row(NOT_SO, PAGE, data=named),
    "api_key_revoke": Row(NOT_SO, MINE_POST, of("key")),
    # Frame
    "home": Row(PAGE),
    "running": Row(PAGE),
    "machines": Row(PAGE),
    "api_reference": Row(PAGE),
    # Teams
    "teams": Row(PAGE, "login 302 302 302 302", data=named),
    "team": Row(SEEN, args=team),
    "team_switch": Row(NOT_SO, "login 404 302 302 302", team),
    "team_leave": Row(NOT_SO, "login 404 302 302 400", team),  # alice is the last owner
    "team_rename": Row(NOT_SO, OWNERS, team, named),
    "team_delete": Row(NOT_SO, "login 404 403 403 409", team),  # it owns things
    "team_invite": Row(NOT_SO, "login 404 403 403 200", team, lambda world: {"role": Role.VIEWER}),
    "invitation_delete": Row(NOT_SO, OWNERS, lambda world: [*team(world), world.invitation.pk]),
    "member_role": Row(NOT_SO, OWNERS, member, lambda world: {"role": Role.MEMBER}),
    "member_remove": Row(NOT_SO, OWNERS, member),
    # Datasets
    "datasets": Row(PAGE),
    "dataset_new": Row("login 200 403 200 200", "login 422 403 422 422"),
    "dataset_copy": Row("login 200 403 200 200", "login 422 403 422 422", data=named),
    "dataset_hub": Row("login 200 403 200 200", "login 422 403 422 422", data=named),
    "upload_new": Row(NOT_SO, "login 412 412 412 412"),  # whose version of the protocol is missing
    "upload": Row(NOT_SO, args=of("upload"), patch=MY_UPLOAD, delete=MY_UPLOAD),
    "dataset_sample": Row(NOT_SO, HIS_TOO),
    "dataset": Row(SEEN, args=of("dataset")),
    "dataset_version_new": Row("login 404 403 200 200", "login 404 403 422 422", of("dataset")),
    "dataset_rows": Row(SEEN, args=of("version")),
    "row": Row(SEEN, args=lambda world: [world.version.pk, 1]),
    "row_marks": Row(NOT_SO, MEMBERS, of("version"), lambda world: {"number": 1, "star": "on"}),
    "version_export": Row(SEEN, args=of("version")),
    "version_export_losses": Row(SEEN, args=of("version")),
    "dataset_download": Row(SEEN, args=of("version")),
    "dataset_rename": Row(NOT_SO, MEMBERS, of("dataset")),
    "dataset_delete": Row(NOT_SO, MEMBERS, of("free_dataset")),
    "dataset_mapping": Row("login 404 403 200 200", "login 404 403 409 409", of("version")),  # it has no columns
    "mapping_tokens": Row("login 404 403 200 200", args=of("version")),
    "version_errors": Row(SEEN, args=of("version")),
    "version_bad_lines": Row(SEEN, args=of("spoilt")),
    "dataset_skip_bad_rows": Row(NOT_SO, "login 404 403 409 409", of("version")),  # it has none
    "version_fetch_again": Row(NOT_SO, "login 404 403 409 409", of("version")),  # it has its file
    "version_inspect_again": Row(NOT_SO, "login 404 403 409 409", of("version")),  # it was inspected to the end
    "version_findings": Row(SEEN, args=of("version")),
    "finding_fix": Row("login 404 403 409 409", "login 404 403 409 409", nothing_found),  # the version is sound
    "version_seen": Row(SEEN, args=of("version")),
    "version_tokens": Row(SEEN, args=of("version")),
    "version_diff": Row(SEEN, args=of("version")),
    "version_restore": Row(NOT_SO, MEMBERS, of("version")),
    "version_delete": Row(NOT_SO, "login 404 403 409 409", of("version")),  # a job was made from it
    "split_new": Row("login 404 403 200 200", "login 404 403 422 422", of("version")),
    "row_edit": Row("login 404 403 200 200", "login 404 403 422 422", first_row),
    "row_add": Row("login 404 403 200 200", "login 404 403 422 422", of("version")),
    "draft": Row("login 404 403 200 200", args=of("version")),
    "draft_remove": Row(NOT_SO, MEMBERS, of("version"), lambda world: {"number": "1"}),
    "draft_save": Row(NOT_SO, "login 404 403 409 302", of("version")),  # bob has none; alice's becomes a version
    "draft_discard": Row(NOT_SO, MEMBERS, of("version")),
    "draft_row": Row(MINE, "login 404 404 404 422", of("change")),
    "draft_undo": Row(NOT_SO, MINE_POST, of("change")),
    # Base models: everyone's to see, the server owner's to change
    "base_models": Row(PAGE),
    "base_add": Row(STAFF, STAFF),
    "base_model": Row(PAGE, args=of("base")),
    "base_status": Row(PAGE, args=of("base")),
    "base_retry": Row(NOT_SO, STAFF, of("base")),
    "base_delete": Row(NOT_SO, STAFF, of("base")),
    # Adapters
    "adapters": Row(PAGE),
    "adapter_import": Row("login 200 403 200 200", "login 422 403 422 422"),
    "adapter": Row(SEEN, args=of("adapter")),
    "adapter_download": Row(SEEN, args=of("adapter")),
    "adapter_rename": Row(NOT_SO, MEMBERS, of("adapter"), named),
    "adapter_share": Row(NOT_SO, MEMBERS, of("adapter"), lambda world: {"team": "charlie-own"}),
    "adapter_unshare": Row(NOT_SO, MEMBERS, of("share")),
    "adapter_delete": Row(NOT_SO, MEMBERS, of("adapter")),
    # Jobs
    "jobs": Row(PAGE),
    "job_new": Row("login 200 403 200 200", "login 422 403 422 422"),
    "job_estimate": Row(NOT_SO, "login 200 403 200 200"),
    "job": Row(SEEN, args=of("job")),
    "job_events": Row(SEEN, args=of("job")),
    "job_spec": Row(SEEN, args=of("job")),
    "job_log": Row(SEEN, args=of("job")),
    "job_cancel": Row(NOT_SO, MEMBERS, of("job")),
    "job_pause": Row(NOT_SO, MEMBERS, of("job")),
    "job_resume": Row(NOT_SO, MEMBERS, of("job")),
    "job_retry": Row(NOT_SO, MEMBERS, of("lost_job")),
    "job_delete": Row(NOT_SO, MEMBERS, of("lost_job")),
    # Chat: viewers may; a conversation is its author's alone
    "chat": Row(PAGE, "login 302 302 302 302", data=base_target),
    "conversation": Row(MINE, args=of("conversation")),
    "conversation_settings": Row(NOT_SO, MINE_POST, of("conversation"), base_target),
    "conversation_delete": Row(NOT_SO, MINE_POST, of("conversation")),
    "turn_new": Row(NOT_SO, MINE_POST, of("conversation"), lambda world: {"message": "Hello"}),
    "turn_stream": Row(MINE, args=of("turn")),
    "turn_stop": Row(NOT_SO, MINE_POST, of("turn")),
    "turn_retry": Row(NOT_SO, MINE_POST, of("turn")),
}


API = "v1/"  # takes keys and no logins: tests/api/test_permissions.py
IN_THREADS = ["job_events"]  # read on other connections, which see committed rows alone


def patterns(resolver: URLResolver | None = None) -> Iterator[URLPattern]:
    for one in (resolver or get_resolver()).url_patterns:
        if isinstance(one, URLResolver) and str(one.pattern) != API:
            yield from patterns(one)
        elif isinstance(one, URLPattern):
            yield one


def test_every_address_is_in_the_table() -> None:
    names = [one.name for one in patterns()]
    unnamed = [str(one.pattern) for one in patterns() if not one.name]
    assert not unnamed, f"Give these addresses a name: {unnamed}"
    assert not set(names) - set(TABLE), f"Add to TABLE who may use them: {sorted(set(names) - set(TABLE))}"
    assert not set(TABLE) - set(names), f"In TABLE but nowhere else: {sorted(set(TABLE) - set(names))}"
    assert len(names) == len(set(names)), "Two addresses have one name."


@contextmanager
def fresh_world() -> Iterator[World]:
    """The cast and its things, gone again at the end: one person's delete is not the next one's 404."""
    cache.clear()
    with transaction.atomic():
        yield World(make_cast())
        transaction.set_rollback(True)


def said(response: HttpResponse) -> str:
    """The status, or `login`."""
    if response.status_code == 302 and response["Location"].startswith("/accounts/login/?next="):
        return LOGIN
    return str(response.status_code)


def expected(answers: str) -> dict[str, str]:
    words = answers.split()
    return dict(zip(PEOPLE, words * 5 if len(words) == 1 else words, strict=True))


def allowed(answers: str, who: str) -> set[str]:
    word = expected(answers)[who]
    return {word, LOGIN} if word == NOT_SO and who == "anonymous" else {word}


def get_as_everybody(name: str, world: World) -> None:
    row = TABLE[name]
    address = reverse(name, args=row.args(world))
    for who in PEOPLE:
        answer = said(world.cast.client(who).get(address))
        assert answer in allowed(row.get, who), f"GET {address} as {who}: {answer}"


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name in TABLE if name not in IN_THREADS])
def test_get(name: str) -> None:
    with fresh_world() as world:
        get_as_everybody(name, world)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", IN_THREADS)
def test_get_of_streams(name: str) -> None:
    cache.clear()
    get_as_everybody(name, World(make_cast()))


@pytest.mark.django_db
@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("name", TABLE)
def test_post(name: str, who: str) -> None:
    row = TABLE[name]
    with fresh_world() as world:
        address = reverse(name, args=row.args(world))
        answer = said(world.cast.client(who).post(address, row.data(world)))
        assert answer in allowed(row.post, who), f"POST {address} as {who}: {answer}"


@pytest.mark.django_db
@pytest.mark.parametrize("name", TABLE)
def test_other_methods_are_refused(name: str) -> None:
    row = TABLE[name]
    with fresh_world() as world:
        address = reverse(name, args=row.args(world))
        for who in PEOPLE:
            client = world.cast.client(who)
            for method, answers in (("put", NOT_SO), ("patch", row.patch), ("delete", row.delete)):
                answer = said(getattr(client, method)(address))
                assert answer in allowed(answers, who), f"{method.upper()} {address} as {who}: {answer}"


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.post != NOT_SO])
def test_a_post_without_its_token_is_refused(name: str) -> None:
    row = TABLE[name]
    with fresh_world() as world:
        client = Client(enforce_csrf_checks=True)
        client.force_login(world.cast.alice)
        response = client.post(reverse(name, args=row.args(world)), row.data(world))
        assert response.status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if "404" in row.get + row.post])
def test_an_unknown_id_looks_like_a_foreign_one(name: str) -> None:
    """Whoever tries ids learns nothing, not even that something is there."""
    row = TABLE[name]
    method = "get" if "404" in row.get else "post"
    with fresh_world() as world:
        client = world.cast.client("charlie")
        args = row.args(world)
        foreign = getattr(client, method)(reverse(name, args=args), row.data(world))
        unknown = ["no-such-team" if isinstance(one, str) else one if isinstance(one, int) else uuid4() for one in args]
        nothing = getattr(client, method)(reverse(name, args=unknown), row.data(world))
        assert foreign.status_code == nothing.status_code == 404
        assert len(foreign.content) == len(nothing.content)


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.args is not TABLE["home"].args])
def test_a_removed_member_has_nothing_left(name: str) -> None:
    """What answers 404 to a stranger answers 404 to who was a member a moment ago, in the session they had."""
    row = TABLE[name]
    method, answers = ("get", row.get) if row.get != NOT_SO else ("post", row.post)
    with fresh_world() as world:
        client = world.cast.client("vera")
        address = reverse(name, args=row.args(world))
        world.cast.team.memberships.filter(user=world.cast.vera).delete()
        assert said(getattr(client, method)(address, row.data(world))) == expected(answers)["charlie"]
