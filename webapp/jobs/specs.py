"""A spec for people and other machines: names in place of this machine's folders."""

import dataclasses

from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel, BaseSource
from webapp.datasets.models import DatasetVersion


def portable_yaml(spec: TrainSpec, base: BaseModel, version: DatasetVersion) -> str:
    """The spec as YAML: a hub model by its id, another by its name; rows by the name of the uploaded file."""
    named = base.location if base.source == BaseSource.HUB else base.name
    model = dataclasses.replace(spec.model, base=named, revision=base.revision)
    data = dataclasses.replace(spec.data, path=version.original_name)
    return dataclasses.replace(spec, model=model, data=data).to_yaml()
