"""Adding base models: who may, from where, and what is refused."""

from pathlib import Path

import pytest
from django.urls import reverse
from pytest_django import Settings

from tests.cast import Cast, make_user
from tests.make import make_adapter, make_base
from tests.tiny import make_tiny_base
from webapp.accounts.models import AuditEntry
from webapp.adapters.models import BaseModel, BaseStatus


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    folder = tmp_path / "roots" / "bases"
    folder.mkdir(parents=True)
    settings.BASES_ROOTS = [folder]
    return folder


@pytest.fixture
def staff(cast: Cast) -> Cast:
    cast.alice.is_staff = True
    cast.alice.save()
    return cast


def add(cast: Cast, who: str = "alice", **data: str) -> int:
    return cast.client(who).post(reverse("base_add"), {"source": "folder", **data}).status_code


def test_a_folder_below_a_root_is_added(staff: Cast, root: Path) -> None:
    folder = make_tiny_base(root / "tiny")
    assert add(staff, location=str(folder)) == 302
    base = BaseModel.objects.get()
    assert (base.name, base.location, base.status) == ("tiny", str(folder), BaseStatus.FETCHING)
    assert AuditEntry.objects.get(action="base.add").actor == staff.alice


def test_folders_outside_are_refused_by_any_road(staff: Cast, root: Path, tmp_path: Path) -> None:
    outside = make_tiny_base(tmp_path / "outside")
    make_tiny_base(root / "mixed")
    (root / "mixed" / "model.safetensors").unlink()
    (root / "mixed" / "model.safetensors").symlink_to(outside / "model.safetensors")
    (make_tiny_base(root / "templates") / "additional_chat_templates").mkdir()
    (root / "templates" / "additional_chat_templates" / "rag.jinja").symlink_to(outside / "config.json")
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    tempting = [
        str(outside),
        str(root / "link"),
        str(root / "mixed"),
        str(root / "templates"),
        str(root / "loop"),
        f"{root}/../../outside",
        f"{root}-evil",
        "/etc",
        "relative/path",
        str(root / "missing"),
        str(root / "mixed" / "config.json"),
        "~root",
    ]
    for location in tempting:
        assert add(staff, location=location) == 422, location
    assert not BaseModel.objects.exists()


def test_hub_ids_are_checked(staff: Cast) -> None:
    for location in ("no-owner", "../../etc", "a/b/c", "owner/..", "https://hub/owner/name", "owner/na me", "-o/n"):
        assert add(staff, source="hub", location=location) == 422, location
    for revision in ("../up", "a b", "-x"):
        assert add(staff, source="hub", location="owner/name", revision=revision) == 422, revision
    assert add(staff, source="hub", location="owner/name", revision="refs/pr/1") == 302
    assert BaseModel.objects.get().name == "owner/name"


def test_a_name_is_taken_once(staff: Cast) -> None:
    make_base(name="owner/name")
    assert add(staff, source="hub", location="owner/name") == 422
    assert add(staff, source="hub", location="owner/other", name="owner/name") == 422
    assert add(staff, source="hub", location="owner/name", name="the other one") == 302


def test_only_staff_adds_retries_and_removes(cast: Cast, root: Path) -> None:
    base = make_base(status=BaseStatus.FAILED)
    assert cast.client("alice").get(reverse("base_add")).status_code == 403
    assert add(cast, location=str(make_tiny_base(root / "tiny"))) == 403
    for name in ("base_retry", "base_delete"):
        assert cast.client("alice").post(reverse(name, args=[base.pk])).status_code == 403
    assert add(cast, "anonymous", location="x") == 302
    assert list(BaseModel.objects.all()) == [base]


def test_a_base_with_adapters_stays(staff: Cast) -> None:
    base = make_base()
    make_adapter(staff.team, base)
    client = staff.client("alice")
    assert client.post(reverse("base_delete", args=[base.pk])).status_code == 409
    base.adapters.all().delete()
    assert client.post(reverse("base_delete", args=[base.pk])).status_code == 302
    assert not BaseModel.objects.exists()
    assert base.folder.exists(), "a folder of the machine is not ours to delete"


def test_everyone_sees_base_models(cast: Cast) -> None:
    base = make_base()
    make_user("dora@example.com")
    for url in (reverse("base_models"), reverse("base_model", args=[base.pk]), reverse("base_status", args=[base.pk])):
        assert cast.client("charlie").get(url).status_code == 200
        assert cast.client("anonymous").get(url).status_code == 302
    page = cast.client("charlie").get(reverse("base_model", args=[base.pk])).content.decode()
    assert "135 M" in page
    assert "2,048 tokens" in page


def test_a_folder_that_is_not_there_is_called_missing_and_outside_it_is_not(staff: Cast, root: Path) -> None:
    client = staff.client("alice")

    def said(location: str) -> str:
        return client.post(reverse("base_add"), {"source": "folder", "location": location}).content.decode()

    assert "There is no folder" in said(str(root / "missing"))
    assert "outside the allowed roots" in said("/nowhere/at/all")
    assert f"Put it below {root}" in said("/nowhere/at/all")
