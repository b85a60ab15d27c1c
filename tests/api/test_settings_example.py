"""The example on the settings page runs as it stands."""

import subprocess
import sys
from html import unescape

from django.test import Client

from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import make_base


def test_it_runs_with_the_new_key(live: LiveServer, people: Cast) -> None:
    make_base(name="tiny")
    browser = Client(headers={"Host": f"localhost:{live.port}"})
    browser.force_login(people.bob)
    page = browser.post("/settings/keys/", {"name": "script"}).content.decode()
    assert f"<code>{live.address}/v1</code>" in page
    example = unescape(page.partition('id="api-example">')[2].partition("</code>")[0])
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("tiny\n", 0), done.stderr


def test_without_a_new_key_it_shows_where_one_goes(cast: Cast) -> None:
    page = cast.client("vera").get("/settings/").content.decode()
    assert 'api_key="lr_…"' in unescape(page)
