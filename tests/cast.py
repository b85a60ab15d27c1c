"""The fixed cast: alice (owner), bob (member), vera (viewer) of one team, and charlie, a stranger. And `make_*`."""

from dataclasses import dataclass
from typing import Any

from django.test import Client

from webapp.accounts.models import Membership, Role, Team, User

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Cast:
    team: Team
    alice: User
    bob: User
    vera: User
    charlie: User

    def client(self, who: str) -> Client:
        """A browser logged in as `who`, working in the team (charlie: in his own); `anonymous` is nobody."""
        client = Client()
        if who != "anonymous":
            client.force_login(getattr(self, who))
            if who != "charlie":
                session = client.session
                session["team"] = str(self.team.pk)
                session.save()
        return client


def make_user(email: str, **extra: Any) -> User:
    """A user with a personal team."""
    user = User.objects.create_user(email, PASSWORD, **extra)
    slug = email.partition("@")[0]
    team = Team.objects.create(name=slug, slug=f"{slug}-own", personal_of=user)
    Membership.objects.create(team=team, user=user, role=Role.OWNER)
    return user


def make_cast() -> Cast:
    team = Team.objects.create(name="Red team", slug="red-team")
    people = {name: make_user(f"{name}@example.com") for name in ("alice", "bob", "vera", "charlie")}
    for name, role in (("alice", Role.OWNER), ("bob", Role.MEMBER), ("vera", Role.VIEWER)):
        Membership.objects.create(team=team, user=people[name], role=role)
    return Cast(team=team, **people)
