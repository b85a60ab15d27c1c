"""The spec as a download: names that mean the same on other machines."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_base, make_dataset, make_job
from trainer.base_source import note_source
from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel, BaseSource

HUB_ID, COMMIT = "owner/name", "c" * 40


@pytest.mark.parametrize(
    ("row", "noted", "named"),
    [
        ({"source": BaseSource.DEMO, "revision": "0.1.2"}, (HUB_ID, ""), (HUB_ID, "")),
        ({"source": BaseSource.HUB, "location": HUB_ID, "revision": COMMIT}, None, (HUB_ID, COMMIT)),
        ({"source": BaseSource.FOLDER}, (HUB_ID, COMMIT), (HUB_ID, COMMIT)),
        ({"source": BaseSource.FOLDER, "revision": "ours"}, None, ("tiny", "")),
    ],
)
def test_a_spec_names_the_hub_s_id_or_nothing_of_it(
    cast: Cast, row: dict[str, str], noted: tuple[str, str] | None, named: tuple[str, str]
) -> None:
    base = make_base()
    BaseModel.objects.update(**row)
    if noted:
        note_source(base.folder, name=noted[0], revision=noted[1])
    version = make_dataset(cast.team, original_name="our rows.json").versions.get()
    job = make_job(cast.team, base=base, version=version)
    spec = TrainSpec.from_yaml(cast.client("vera").get(reverse("job_spec", args=[job.pk])).content.decode())
    assert (spec.model.base, spec.model.revision) == named
    assert spec.data.path == "our rows.jsonl"
