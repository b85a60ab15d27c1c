"""A spec for people and other machines: names in place of this machine's folders."""

import dataclasses

from trainer.base_source import source_of
from trainer.spec import SpecError, TrainSpec
from webapp.adapters.models import Adapter, BaseModel, BaseSource
from webapp.datasets.models import DatasetVersion


def spec_yaml(adapter: Adapter, *, with_rows: bool) -> str:
    """The spec that an adapter was made by, in full; empty for an imported one, which tells nothing of its training.

    What its rows are called is for its own team. A checkpoint was made by the job of what it is of.
    """
    if "optim" not in adapter.spec:
        return ""
    try:
        spec = TrainSpec.from_dict(adapter.spec)
        if not with_rows:
            return portable_yaml(spec, adapter.base_model, None)
        job = getattr(adapter.of or adapter, "job", None)
        aside = job.validation_version if job else None
        return portable_yaml(spec, adapter.base_model, adapter.dataset_version, aside)
    except SpecError as error:
        return "\n".join(f"# {line}" for line in str(error).splitlines())


def portable_yaml(
    spec: TrainSpec, base: BaseModel, version: DatasetVersion | None, aside: DatasetVersion | None = None
) -> str:
    """The spec as YAML: a model by the id the hub knows it by, else by its name; rows by the name of their download.

    `aside` has the rows that are measured on, where they are a file of their own.
    """
    fetched = base.source == BaseSource.HUB
    published, revision = (base.location, base.revision) if fetched else source_of(base.folder)
    on_hub = "/" in published
    model = dataclasses.replace(spec.model, base=published if on_hub else base.name, revision=revision * on_hub)
    path, aside_path = version.download_name if version else spec.data.path, aside.download_name if aside else ""
    data = dataclasses.replace(spec.data, path=path, holdout_path=aside_path)
    return dataclasses.replace(spec, model=model, data=data).to_yaml()
