"""From raw files to canonical rows: one module a format family; no torch, no Django."""

from trainer.formats.canonical import Kind, Row, content_id, count_rows, iter_rows, read_rows
from trainer.formats.comparing import Difference, compare

__all__ = ["Difference", "Kind", "Row", "compare", "content_id", "count_rows", "iter_rows", "read_rows"]
