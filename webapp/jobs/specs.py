"""A spec for people and other machines: names in place of this machine's folders."""

import dataclasses

from trainer.base_source import source_of
from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel, BaseSource
from webapp.datasets.models import DatasetVersion


def portable_yaml(
    spec: TrainSpec, base: BaseModel, version: DatasetVersion, aside: DatasetVersion | None = None
) -> str:
    """The spec as YAML: a model by the id the hub knows it by, else by its name; rows by the name of their download.

    `aside` has the rows that are measured on, where they are a file of their own.
    """
    fetched = base.source == BaseSource.HUB
    published, revision = (base.location, base.revision) if fetched else source_of(base.folder)
    on_hub = "/" in published
    model = dataclasses.replace(spec.model, base=published if on_hub else base.name, revision=revision * on_hub)
    data = dataclasses.replace(spec.data, path=version.download_name, holdout_path=aside.download_name if aside else "")
    return dataclasses.replace(spec, model=model, data=data).to_yaml()
