"""Sharing an adapter with a team or with everyone, taking it back, and who sees what."""

from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset, make_share
from webapp.accounts.models import AuditEntry, Team
from webapp.adapters.models import Adapter, Share


def team_of(cast: Cast, who: str) -> Team:
    return Team.objects.get(personal_of=getattr(cast, who))


def status(cast: Cast, who: str, adapter: Adapter) -> int:
    return cast.client(who).get(reverse("adapter", args=[adapter.pk])).status_code


def test_a_member_shares_with_a_team_by_its_short_name(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    assert status(cast, "charlie", adapter) == 404
    answer = cast.client("bob").post(reverse("adapter_share", args=[adapter.pk]), {"team": "charlie-own"})
    assert answer.status_code == 302
    share = Share.objects.get()
    assert (share.team, share.created_by) == (team_of(cast, "charlie"), cast.bob)
    assert status(cast, "charlie", adapter) == 200
    assert AuditEntry.objects.filter(action="adapter.share", actor=cast.bob, team=cast.team).exists()


def test_a_name_serves_in_any_case_unless_several_teams_have_it(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    client, address = cast.client("bob"), reverse("adapter_share", args=[adapter.pk])
    Team.objects.create(name="Blue Team", slug="blue-1")
    assert client.post(address, {"team": " blue TEAM "}).status_code == 302
    assert Share.objects.get().team == Team.objects.get(slug="blue-1")
    Team.objects.create(name="blue team", slug="blue-2")
    assert b"several teams of this name" in client.post(address, {"team": "Blue Team"}).content
    assert b"There is no team of this name" in client.post(address, {"team": "Green"}).content
    assert client.post(address, {"team": "Blue-2"}).status_code == 302


def test_own_teams_are_offered(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    page = cast.client("bob").get(reverse("adapter", args=[adapter.pk]), {"tab": "share"}).content.decode()
    assert '<option value="bob-own">' in page
    assert '<option value="red-team">' not in page
    assert '<option value="charlie-own">' not in page


def test_sharing_twice_is_sharing_once(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    for data in ({"team": "charlie-own"}, {"with_everyone": "on"}) * 2:
        cast.client("bob").post(reverse("adapter_share", args=[adapter.pk]), data)
    assert Share.objects.count() == 2
    assert AuditEntry.objects.filter(action="adapter.share").count() == 2
    assert Adapter.objects.visible_to(cast.charlie).count() == 1


def test_removing_a_share_ends_it_at_once(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    share = make_share(adapter, None)
    assert status(cast, "charlie", adapter) == 200
    cast.client("alice").post(reverse("adapter_unshare", args=[share.pk]))
    assert status(cast, "charlie", adapter) == 404
    assert AuditEntry.objects.filter(action="adapter.unshare").count() == 1


def test_who_may_share_and_unshare(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    share = make_share(adapter, team_of(cast, "alice"))
    urls = [reverse("adapter_share", args=[adapter.pk]), reverse("adapter_unshare", args=[share.pk])]
    for who, expected in (("anonymous", 302), ("charlie", 404), ("vera", 403)):
        for url in urls:
            assert cast.client(who).post(url, {"team": "charlie-own"}).status_code == expected, (who, url)
    assert list(Share.objects.all()) == [share]


def test_a_team_it_is_shared_with_may_look_but_not_change(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    share = make_share(adapter, team_of(cast, "charlie"))
    charlie = cast.client("charlie")
    for name in ("adapter_share", "adapter_rename", "adapter_delete"):
        answer = charlie.post(reverse(name, args=[adapter.pk]), {"team": "charlie-own", "name": "mine"})
        assert answer.status_code == 403, name
    assert charlie.post(reverse("adapter_unshare", args=[share.pk])).status_code == 403
    assert Adapter.objects.get().name == "lowrank-style"


def test_others_do_not_see_where_it_comes_from_or_who_else_has_it(cast: Cast) -> None:
    dataset = make_dataset(cast.team, name="secret rows")
    adapter = make_adapter(cast.team, make_base(), dataset_version=dataset.newest, created_by=cast.alice)
    make_share(adapter, team_of(cast, "charlie"))
    make_share(adapter, team_of(cast, "vera"))
    charlie = cast.client("charlie")
    for tab in ("overview", "share", "spec", "use", "files"):
        page = charlie.get(reverse("adapter", args=[adapter.pk]), {"tab": tab}).content.decode()
        assert "secret rows" not in page
        assert "vera" not in page
    listing = charlie.get(reverse("adapters")).content.decode()
    assert "lowrank-style" in listing
    assert "from Red team" in listing
    assert "secret rows" not in listing


def test_a_wrong_team_is_named_at_the_field(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    url = reverse("adapter_share", args=[adapter.pk])
    for data, text in (
        ({"team": "no-such-team"}, "There is no team of this name."),
        ({"team": ""}, "Name a team."),
        ({}, "Name a team."),
    ):
        answer = cast.client("bob").post(url, data)
        assert answer.status_code == 422
        assert text in answer.content.decode()
    assert cast.client("bob").post(url, {"team": "red-team"}).status_code == 400
    assert not Share.objects.exists()
