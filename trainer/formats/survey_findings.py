"""What a survey points out about single rows: one function for each kind of finding."""

from collections.abc import Callable

from trainer.formats.canonical import COPY, Row

Finder = Callable[[Row], str]  # what was found in the row, in a few words; empty when nothing


def repeated(row: Row) -> str:
    """The row says what an earlier one says."""
    return "says exactly what an earlier row says" if COPY in row.id and row.edited is None else ""


def empty_message(row: Row) -> str:
    """A message of the system or of a tool is empty; others are not let in."""
    said = [*row.messages, *row.prompt, *row.chosen, *row.rejected, *row.completion]
    places = [str(number) for number, message in enumerate(said, 1) if message["content"] == ""]
    return f"message {', '.join(places[:5])} is empty" if places else ""


FINDERS: dict[str, Finder] = {"repeated": repeated, "empty_message": empty_message}
