"""The version comes from the change log."""

import re

from webapp.version import CHANGELOG, version


def test_version_is_the_newest_heading() -> None:
    assert version() == re.findall(r"^## (\S+)", CHANGELOG.read_text(), flags=re.MULTILINE)[0]
