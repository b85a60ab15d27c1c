"""The library and an adapter's page, renaming and deleting."""

from django.test import TestCase
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_conversation, make_dataset, make_job, make_share, make_turn
from webapp.accounts.models import AuditEntry
from webapp.adapters.models import Adapter
from webapp.adapters.publishing import pick_hue
from webapp.chat.models import Completion

METRICS = {"evaluation_loss": 1.2345, "perplexity": 3.44, "evaluation_loss_before": 2.5, "accuracy": 0.61, "steps": 120}


def test_the_library_lists_own_and_shared_adapters(cast: Cast) -> None:
    base = make_base()
    make_adapter(cast.team, base, name="ours", metrics=METRICS, created_by=cast.alice)
    foreign = make_adapter(cast.charlie.personal_team, base, name="of charlie")
    make_adapter(cast.charlie.personal_team, base, name="unseen")
    make_share(foreign, cast.team)
    page = cast.client("vera").get(reverse("adapters")).content.decode()
    assert "ours" in page
    assert "1.23" in page
    assert "3.44" in page
    assert "of charlie" in page
    assert "unseen" not in page


def test_an_empty_library_says_what_belongs_here(cast: Cast) -> None:
    page = cast.client("bob").get(reverse("adapters")).content.decode()
    assert "No adapters yet" in page
    assert reverse("job_new") in page


def test_the_library_asks_a_fixed_number_of_questions(cast: Cast, django_assert_max_num_queries: object) -> None:
    base, client = make_base(), cast.client("bob")
    for number in range(12):
        make_share(make_adapter(cast.team, base, name=f"a{number}"), None)
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        client.get(reverse("adapters"))


def test_every_tab_of_an_adapter(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    adapter = make_adapter(cast.team, make_base(), metrics=METRICS, dataset_version=dataset.newest)
    job = make_job(cast.team, version=dataset.newest, adapter=adapter)
    client = cast.client("vera")
    texts = {
        "overview": ["2.50 before training", "61", str(job.pk), "capitals v1"],
        "use": ["PeftModel.from_pretrained(base, &quot;lowrank-style&quot;)", "path/to/tiny"],
        "spec": ["lora_alpha", "learning_rate: 0.0002"],
        "files": ["adapter_model.safetensors", "the trained weights"],
        "share": ["Nobody else yet"],
        "nonsense": ["2.50 before training"],
    }
    for tab, expected in texts.items():
        page = client.get(reverse("adapter", args=[adapter.pk]), {"tab": tab}).content.decode()
        for text in expected:
            assert text in page, (tab, text)


def test_names_are_text_wherever_they_stand(cast: Cast) -> None:
    evil = "<img src=x onerror=alert(1)>"
    adapter = make_adapter(cast.team, make_base(name=evil), name=evil)
    for url in (reverse("adapters"), adapter.get_absolute_url(), adapter.get_absolute_url() + "?tab=use"):
        assert evil not in cast.client("bob").get(url).content.decode()


def test_a_member_renames(cast: Cast) -> None:
    adapter = make_adapter(cast.team, make_base())
    url = reverse("adapter_rename", args=[adapter.pk])
    assert cast.client("vera").post(url, {"name": "new"}).status_code == 403
    assert cast.client("charlie").post(url, {"name": "new"}).status_code == 404
    assert cast.client("bob").post(url, {"name": "new"}).status_code == 302
    assert Adapter.objects.get().name == "new"
    assert cast.client("bob").post(url, {"name": " "}).status_code == 422
    assert cast.client("bob").post(url, {"name": "x" * 121}).status_code == 422
    assert AuditEntry.objects.get(action="adapter.rename").target == "lowrank-style to new"


def test_a_member_deletes_and_the_files_go_after_the_commit(cast: Cast) -> None:
    base = make_base()
    adapter = make_adapter(cast.team, base)
    job = make_job(cast.team, base=base, adapter=adapter)
    turn = make_turn(make_conversation(cast.team, cast.bob, base), adapter=adapter, is_base=False)
    url = reverse("adapter_delete", args=[adapter.pk])
    assert cast.client("vera").post(url).status_code == 403
    with TestCase.captureOnCommitCallbacks(execute=True):
        assert cast.client("bob").post(url).status_code == 302
        assert adapter.folder.is_dir()
    assert not adapter.folder.exists()
    job.refresh_from_db()
    assert job.adapter is None
    assert Completion.objects.get(turn=turn).adapter is None
    assert AuditEntry.objects.filter(action="adapter.delete", target="lowrank-style").exists()


def test_neighbours_differ_in_colour(cast: Cast) -> None:
    base = make_base()
    hues = []
    for number in range(20):
        hues.append(make_adapter(cast.team, base, name=f"a{number}", hue=pick_hue(cast.team)).hue)
    assert sorted(hues[:8]) == list(range(8))
    assert all(len(set(hues[at : at + 8])) == 8 for at in range(12))


def test_the_spec_is_copied_with_names_in_place_of_folders(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    adapter = make_adapter(cast.team, make_base(name="tiny"), dataset_version=dataset.newest)
    make_share(adapter, cast.charlie.personal_team)
    address = adapter.get_absolute_url()
    ours, theirs = (cast.client(who).get(address, {"tab": "spec"}).context["spec_yaml"] for who in ("vera", "charlie"))
    assert "base: tiny\n" in ours and "base: tiny\n" in theirs
    assert f"path: {dataset.newest.download_name}\n" in ours
    assert dataset.newest.download_name not in theirs


def test_the_copied_spec_names_the_rows_that_were_measured_on(cast: Cast) -> None:
    dataset, aside = make_dataset(cast.team), make_dataset(cast.team, name="questions")
    adapter = make_adapter(cast.team, make_base(), dataset_version=dataset.newest)
    checkpoint = make_adapter(cast.team, adapter.base_model, dataset_version=dataset.newest, of=adapter, step=5)
    make_job(cast.team, version=dataset.newest, adapter=adapter, validation_version=aside.newest)
    make_share(adapter, cast.charlie.personal_team)
    told = f"holdout_path: {aside.newest.download_name}\n"
    for one in (adapter, checkpoint):
        page = cast.client("vera").get(one.get_absolute_url(), {"tab": "spec"})
        assert told in page.context["spec_yaml"]
    theirs = cast.client("charlie").get(adapter.get_absolute_url(), {"tab": "spec"})
    assert aside.newest.download_name not in theirs.context["spec_yaml"]
