"""Checkpoints that were published with an adapter: models of their own that go with it and stay out of the lists."""

from pathlib import Path

from django.urls import reverse

from tests.cast import Cast
from tests.jobs.claimed import claimed
from tests.jobs.scripted import ScriptedTrainer, progress
from tests.jobs.test_supervise_job import run
from tests.make import ADAPTER_FILES, make_adapter, make_base, make_share
from trainer import events
from webapp.adapters.models import Adapter
from webapp.adapters.services import delete_adapter, rename_adapter
from webapp.jobs.models import JobStatus


def make_checkpoint(final: Adapter, step: int = 40) -> Adapter:
    name = f"{final.name}, step {step}"
    metrics = {"evaluation_loss": 1.25}
    return make_adapter(final.team, final.base_model, name=name, of=final, step=step, metrics=metrics)


def test_a_job_publishes_what_was_kept_on_the_way(cast: Cast, tmp_path: Path) -> None:
    attempt = claimed(cast)
    trainer = ScriptedTrainer(tmp_path).says(progress(10))
    told = []
    for step in (4, 8):
        trainer.runs(f"folder('snapshots/step-{step:06d}', {ADAPTER_FILES!r})")
        told.append({"step": step, "folder": f"snapshots/step-{step:06d}", "loss": 1.0, "evaluation_loss": step / 10})
    told += [{"step": 9, "folder": "snapshots/step-000009"}, {"step": 10, "folder": "../../../bases"}]
    trainer.publishes(loss=0.5, checkpoints=told)
    job = run(attempt, trainer)
    assert job.status == JobStatus.SUCCEEDED
    assert job.adapter and "checkpoints" not in job.adapter.metrics
    found = list(job.adapter.checkpoints.order_by("step"))
    assert [(one.step, one.name, one.metrics["evaluation_loss"]) for one in found] == [
        (4, "first try, step 4", 0.4),
        (8, "first try, step 8", 0.8),
    ], "what is gone, or lies elsewhere, is passed over"
    assert {one.team for one in found} == {cast.team}
    assert all((one.folder / "adapter_model.safetensors").is_file() and one.hue == job.adapter.hue for one in found)


def test_lists_show_the_adapter_alone_and_its_page_the_checkpoints(cast: Cast) -> None:
    final = make_adapter(cast.team, make_base())
    one = make_checkpoint(final)
    client = cast.client("vera")
    for name in ("adapters", "chat", "home"):
        assert "step 40" not in client.get(reverse(name)).content.decode(), name
    page = client.get(final.get_absolute_url()).content.decode()
    assert "Step 40" in page and "1.25" in page and one.get_absolute_url() in page
    own = client.get(one.get_absolute_url()).content.decode()
    assert "A checkpoint of" in own and "after step 40" in own
    assert "step 40" in client.get(reverse("chat"), {"adapter": str(one.pk)}).content.decode()


def test_a_shared_checkpoint_is_in_the_other_teams_library(cast: Cast) -> None:
    final = make_adapter(cast.team, make_base())
    one = make_checkpoint(final)
    client = cast.client("charlie")
    assert client.get(one.get_absolute_url()).status_code == 404
    make_share(one, cast.charlie.personal_team)
    assert client.get(one.get_absolute_url()).status_code == 200
    assert client.get(final.get_absolute_url()).status_code == 404
    assert "step 40" in client.get(reverse("adapters")).content.decode()
    assert "step 40" in client.get(reverse("chat")).content.decode()


def test_sharing_the_adapter_does_not_share_its_checkpoints(cast: Cast) -> None:
    final = make_adapter(cast.team, make_base())
    one = make_checkpoint(final)
    make_share(final, cast.charlie.personal_team)
    client = cast.client("charlie")
    assert client.get(one.get_absolute_url()).status_code == 404
    assert "Step 40" not in client.get(final.get_absolute_url()).content.decode()


def test_they_are_renamed_and_deleted_with_it(cast: Cast, django_capture_on_commit_callbacks: object) -> None:
    final = make_adapter(cast.team, make_base())
    one = make_checkpoint(final)
    rename_adapter(adapter=final, name="better", actor=cast.alice)
    one.refresh_from_db()
    assert one.name == "better, step 40"
    folders = [final.folder, one.folder]
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        delete_adapter(adapter=final, actor=cast.alice)
    assert not Adapter.objects.exists()
    assert not any(folder.exists() for folder in folders)


def test_deleting_one_leaves_the_adapter(cast: Cast) -> None:
    final = make_adapter(cast.team, make_base())
    delete_adapter(adapter=make_checkpoint(final), actor=cast.alice)
    assert list(Adapter.objects.all()) == [final]


def test_events_of_an_old_trainer_have_none(cast: Cast, tmp_path: Path) -> None:
    job = run(claimed(cast), ScriptedTrainer(tmp_path).says(events.Phase(name="saving")).publishes())
    assert job.adapter and not job.adapter.checkpoints.exists()
