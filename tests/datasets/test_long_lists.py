"""Many datasets and many versions: a page at a time, found by name, without a script."""

import threading
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import uploaded
from tests.make import make_dataset, make_version
from webapp.accounts.models import Team
from webapp.datasets import listing, services
from webapp.datasets.forms import MOST_CHOICES
from webapp.datasets.models import Dataset, DatasetVersion


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "DATASETS_PER_PAGE", 3)
    monkeypatch.setattr(listing, "VERSIONS_PER_PAGE", 3)


def shown(cast: Cast, **query: Any) -> tuple[list[str], str]:
    page = cast.client("vera").get(reverse("datasets"), query).content.decode()
    return [name for name in Dataset.objects.values_list("name", flat=True) if f">{name}</a>" in page], page


@pytest.mark.usefixtures("short_pages")
def test_datasets_come_a_page_at_a_time(cast: Cast) -> None:
    for number in range(7):
        make_dataset(cast.team, name=f"set {number}")
    assert sorted(shown(cast)[0]) == ["set 4", "set 5", "set 6"], "the newest first"
    assert sorted(shown(cast, page=3)[0]) == ["set 0"]
    page = shown(cast, page=2)[1]
    assert 'href="?page=1"' in page and 'href="?page=3"' in page and "7 datasets in" in page
    for wrong in ("0", "-1", "99", "x", "²"):
        assert shown(cast, page=wrong)[0]


@pytest.mark.usefixtures("short_pages")
def test_datasets_are_found_by_name(cast: Cast) -> None:
    for number in range(7):
        make_dataset(cast.team, name=f"Über {number}" if number % 2 else f"set {number}")
    make_dataset(cast.charlie.personal_team, name="set of others")
    names, page = shown(cast, q=" set ")
    assert sorted(names) == ["set 2", "set 4", "set 6"]
    assert 'href="?q=set&amp;page=2"' in page and 'value="set"' in page
    assert shown(cast, q="set", page=2)[0] == ["set 0"]
    names, page = shown(cast, q='"><script>')
    assert not names and "No name holds “&quot;&gt;&lt;script&gt;”" in page
    assert shown(cast, q="%")[0] == [] and shown(cast, q="\0")[0]


def test_a_short_list_has_neither_search_nor_pages(cast: Cast) -> None:
    make_dataset(cast.team, name="one")
    page = shown(cast)[1]
    assert 'name="q"' not in page and 'aria-label="Pages"' not in page


@pytest.mark.usefixtures("short_pages")
def test_versions_come_a_page_at_a_time_and_are_found_by_note(cast: Cast, django_assert_max_num_queries: Any) -> None:
    dataset = make_dataset(cast.team)
    for number in range(2, 9):
        make_version(dataset, note="the good one" if number == 4 else "")
    client, address = cast.client("bob"), reverse("dataset", args=[dataset.pk])
    with django_assert_max_num_queries(40):
        page = client.get(address, {"tab": "versions"}).content.decode()
    assert [number for number in range(1, 9) if f">Version {number}</a>" in page] == [6, 7, 8]
    assert 'href="?version=8&amp;tab=versions&amp;page=2"' in page
    last = client.get(address, {"tab": "versions", "page": 3}).content.decode()
    assert "Version 1</a>" in last and "Version 2</a>" in last
    assert last.count("What changed") == 1, "the first version has none before it"
    assert "Delete version 1" in last
    found = client.get(address, {"tab": "versions", "q": "GOOD", "version": 2}).content.decode()
    assert [number for number in range(1, 9) if f'"?version={number}">Version {number}</a>' in found] == [4]
    assert 'name="version" value="2"' in found
    assert "No such version" in client.get(address, {"tab": "versions", "q": "zzz"}).content.decode()


def test_a_copy_is_chosen_from_a_list_that_stays_short(cast: Cast) -> None:
    for number in range(MOST_CHOICES + 5):
        make_dataset(cast.team, name=f"set {number}")
    oldest = DatasetVersion.objects.order_by("created_at")[0]
    client, address = cast.client("bob"), reverse("dataset_copy")
    page = client.get(address).content.decode()
    assert page.count("<option") == MOST_CHOICES + 1
    assert str(oldest.pk) not in page and f"The newest {MOST_CHOICES} of {MOST_CHOICES + 5}" in page
    assert str(oldest.pk) in client.get(address, {"version": oldest.pk}).content.decode(), "the one one came from"
    found = client.get(address, {"q": oldest.dataset.name}).content.decode()
    assert f'value="{oldest.pk}"' in found
    assert "No dataset that you see has “zzz”" in client.get(address, {"q": "zzz"}).content.decode()
    assert client.get(address, {"version": "no id"}).status_code == 200
    assert client.post(address, {"version": "no id"}).status_code == 422


@pytest.mark.django_db(transaction=True)
def test_two_clicks_on_the_sample_make_one(cast: Cast) -> None:
    team = Team.objects.get(pk=cast.team.pk)
    begin, made = threading.Barrier(4), []

    def click() -> None:
        begin.wait()
        made.append(services.add_sample_dataset(user=cast.bob, team=team).pk)

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Dataset.objects.get().pk] * 4


def test_the_other_columns_are_in_the_download(cast: Cast) -> None:
    row = b'{"instruction": "a", "output": "b", "lang": "de", "input": ""}\n'
    version = uploaded(cast, row)
    assert b'"lang": "de"' in b"".join(services.rows_as_jsonl(version))
