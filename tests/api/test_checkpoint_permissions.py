"""Permissions of a checkpoint are shares with teams: the same on the pages and over the wire."""

import openai
import pytest
from openai import OpenAI

from tests.adapters.test_checkpoints_of_an_adapter import make_checkpoint
from tests.api.conftest import Connect
from tests.cast import Cast
from tests.make import make_adapter, make_base, make_share
from webapp.accounts.models import AuditEntry, Team
from webapp.adapters.models import Adapter, Share


@pytest.fixture
def checkpoint(people: Cast) -> Adapter:
    return make_checkpoint(make_adapter(people.team, make_base(), name="bot"), 6)


def wire(checkpoint: Adapter) -> str:
    return f"ftckpt-{checkpoint.pk.hex}"


def name(checkpoint: Adapter) -> str:
    assert checkpoint.of
    return f"ft:tiny:red-team:bot:{checkpoint.of.pk.hex[:12]}:ckpt-step-6"


def test_a_team_gets_the_checkpoint_and_loses_it_again(
    client: OpenAI, connect: Connect, people: Cast, checkpoint: Adapter
) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    [made] = permissions.create(wire(checkpoint), project_ids=["charlie-own"])
    assert (made.object, made.project_id, made.id) == (
        "checkpoint.permission",
        "charlie-own",
        f"cp_{Share.objects.get().pk.hex}",
    )
    assert connect("charlie").models.retrieve(name(checkpoint)).id == name(checkpoint)
    with pytest.raises(openai.NotFoundError):
        connect("charlie").models.retrieve(name(checkpoint).removesuffix(":ckpt-step-6"))
    assert [one.id for one in permissions.list(wire(checkpoint))] == [made.id]
    gone = permissions.delete(made.id, fine_tuned_model_checkpoint=wire(checkpoint))
    assert (gone.id, gone.deleted) == (made.id, True)
    assert list(permissions.list(wire(checkpoint))) == []
    with pytest.raises(openai.NotFoundError):
        connect("charlie").models.retrieve(name(checkpoint))
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"adapter.share", "adapter.unshare"}


def test_it_is_named_by_its_model_name_too(client: OpenAI, checkpoint: Adapter) -> None:
    [made] = client.fine_tuning.checkpoints.permissions.create(name(checkpoint), project_ids=["*"])
    assert made.project_id == "*"
    assert Share.objects.get().team is None


def test_lists_are_paged_ordered_and_filtered(client: OpenAI, people: Cast, checkpoint: Adapter) -> None:
    for number in range(3):
        make_share(checkpoint, Team.objects.create(name=f"Team {number}", slug=f"team-{number}"))
    permissions = client.fine_tuning.checkpoints.permissions
    found = [one.project_id for one in permissions.list(wire(checkpoint), limit=2)]
    assert found == ["team-2", "team-1", "team-0"]
    oldest_first = [one.project_id for one in permissions.list(wire(checkpoint), order="ascending", limit=1)]
    assert oldest_first == found[::-1]
    assert [one.project_id for one in permissions.list(wire(checkpoint), project_id="team-1")] == ["team-1"]


def test_one_wrong_team_and_nobody_gets_it(client: OpenAI, checkpoint: Adapter) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    for wrong in (["charlie-own", "no-such-team"], [], ["charlie-own", "red-team"], [7], [["x"]], ["a\\"]):
        with pytest.raises(openai.BadRequestError) as caught:
            permissions.create(wire(checkpoint), project_ids=wrong)  # type: ignore[arg-type]
        assert caught.value.param == "project_ids"
    assert not Share.objects.exists()


def test_sharing_twice_is_sharing_once(client: OpenAI, checkpoint: Adapter) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    ids = {permissions.create(wire(checkpoint), project_ids=["charlie-own"]).data[0].id for _ in range(2)}
    assert len(ids) == 1


def test_roles(connect: Connect, people: Cast, checkpoint: Adapter) -> None:
    assert list(connect("vera").fine_tuning.checkpoints.permissions.list(wire(checkpoint))) == []
    with pytest.raises(openai.PermissionDeniedError):
        connect("vera").fine_tuning.checkpoints.permissions.create(wire(checkpoint), project_ids=["charlie-own"])
    make_share(checkpoint, people.charlie.personal_team)
    for act in ("list", "create"):
        permissions = connect("charlie").fine_tuning.checkpoints.permissions
        with pytest.raises(openai.PermissionDeniedError):  # who it is shared with sees it and no more
            if act == "list":
                permissions.list(wire(checkpoint))
            else:
                permissions.create(wire(checkpoint), project_ids=["charlie-own"])


def test_a_permission_of_another_checkpoint_is_not_found(client: OpenAI, people: Cast, checkpoint: Adapter) -> None:
    other = make_share(make_adapter(people.team, checkpoint.base_model, name="other"), people.charlie.personal_team)
    for permission in (f"cp_{other.pk.hex}", "cp_x", "x"):
        with pytest.raises(openai.NotFoundError):
            client.fine_tuning.checkpoints.permissions.delete(permission, fine_tuned_model_checkpoint=wire(checkpoint))
    assert Share.objects.count() == 1
