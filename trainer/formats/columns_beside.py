"""Which extra columns of a row can be exported: those that no reader would take for part of the row itself."""

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.formats.containers.separated import LABEL_COLUMNS, NESTED_COLUMNS
from trainer.formats.detect import FAMILIES, recognise
from trainer.formats.extra import Extra, as_text
from trainer.formats.family import MEDIA
from trainer.formats.layouts import Layout

FIELDS = frozenset(name for family in FAMILIES for name in family.fields)  # read by any family


class ExtraColumns:
    """Adds extra columns to the records of one file. `lost` collects the names of those that cannot be added."""

    def __init__(self, layout: Layout, lost: set[str]) -> None:
        self._layout, self._lost = layout, lost
        self._own = layout.family.fields | MEDIA
        self._table: tuple[str, ...] | None = None

    def table_columns(self, columns: Sequence[str], sample: dict[str, Any] | None) -> tuple[str, ...]:
        """The extra columns of a table. `sample`: one of its records, if there is one."""
        named = [name for name in columns if name == name.strip() and name not in (*LABEL_COLUMNS, *NESTED_COLUMNS)]
        self._lost.update({*columns} - {*named})
        self._table = tuple(self._kept(dict.fromkeys(named, "x"), sample))
        return self._table

    def with_extra(self, record: dict[str, Any], extra: Extra) -> dict[str, Any]:
        """The record with the row's extra columns."""
        if self._table is not None:
            return record | {name: self._cell(name, extra) for name in self._table}
        return record | {name: extra[name] for name in self._kept(extra, record)} if extra else record

    def _cell(self, name: str, extra: Extra) -> str:
        text = as_text(extra.get(name, ""))
        if not text.startswith("[{"):  # such a cell might be read as messages
            return text
        self._lost.add(name)
        return ""

    def _kept(self, extra: Extra, record: dict[str, Any] | None) -> Iterable[str]:
        kept = [name for name in extra if self._is_unclaimed(name)]
        combined = (record or {}) | {name: extra[name] for name in kept}
        for name in extra:
            if name not in kept:
                if record is None or name in self._own or not self._keeps_its_family(combined | {name: extra[name]}):
                    self._lost.add(name)
                else:
                    kept.append(name)
                    combined[name] = extra[name]
        return kept

    def _is_unclaimed(self, name: str) -> bool:
        usual = name.strip().lower().replace(" ", "_").replace("-", "_")
        return not {name, usual} & (FIELDS | MEDIA) and not name.endswith("_trace")

    def _keeps_its_family(self, record: dict[str, Any]) -> bool:
        return recognise([record]).family is self._layout.family
