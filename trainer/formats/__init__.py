"""From raw files to canonical rows: one module per format family; no torch, no Django."""

from trainer.formats.canonical import Kind, Row, content_id, count_rows, iter_rows, read_rows

__all__ = ["Kind", "Row", "content_id", "count_rows", "iter_rows", "read_rows"]
