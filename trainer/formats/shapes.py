"""A row as people edit it, in the shape of canonical rows, checked by the same code as an upload."""

from typing import Any

from trainer.formats import kto, messages, plain_text, preference
from trainer.formats.canonical import SHAPES, Content, Kind
from trainer.formats.family import Family
from trainer.formats.problems import BadRow, json_type
from trainer.formats.strict import StrictDecoder

READERS: dict[Kind, Family] = {
    "chat": messages.FAMILY,
    "text": plain_text.FAMILY,
    "preference": preference.FAMILY,
    "labelled": kto.FAMILY,
}


def read_shape(shape: object, kind: Kind) -> Content:
    """The content of a row of this kind. Raises BadRow wherever the check would refuse the row in a file."""
    if not isinstance(shape, dict):
        raise BadRow(
            "", f"a row must be an object, not {json_type(shape)}", "Write the row as { … } with named fields."
        )
    known = {*SHAPES[kind], "tools"}
    if unknown := [name for name in shape if name not in known]:
        fix = f"Rows of this dataset have {', '.join(SHAPES[kind])}, and perhaps tools."
        raise BadRow(unknown[0][:80], "is no field of such a row", fix)
    content = READERS[kind].to_content(shape)
    try:
        content.to_bytes()
    except UnicodeEncodeError as error:
        raise BadRow("", "half a character (lone surrogate)", "Write the character itself.") from error
    return content


def read_json(text: str) -> Any:
    """JSON, as strict as the check of a file. Raises BadRow."""
    decoder, text = StrictDecoder(), text.strip()
    try:
        value, end = decoder.decode(text)
    except RecursionError as error:
        raise BadRow("", "nested too deep", "Flatten this row.") from error
    except ValueError as error:
        raise BadRow("", f"is not valid JSON: {error}", "Check quotes, commas and brackets.") from error
    if end < len(text):
        raise BadRow("", "there is more after the end of the row", "Write one row.")
    if decoder.found:
        raise BadRow(decoder.found.field, decoder.found.problem, decoder.found.fix)
    return value
