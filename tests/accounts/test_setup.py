"""The first start: a link that makes one owner, once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test import Client

from tests.cast import Cast
from webapp.accounts import services
from webapp.accounts.models import AuditEntry, FirstStart, Role, User
from webapp.common.errors import UserError

OWNER = {"email": "Alice@Example.com", "name": "Alice", "password": "correct horse battery"}


def link() -> str:
    found = services.setup_link()
    assert found
    return found


@pytest.mark.django_db
def test_it_makes_the_owner_with_a_personal_team_and_logs_in(client: Client) -> None:
    response = client.post(link(), OWNER)
    assert (response.status_code, response["Location"]) == (302, "/")
    alice = User.objects.get()
    assert (alice.email, alice.is_staff, alice.is_superuser) == ("alice@example.com", True, True)
    assert alice.personal_team.role_of(alice) == Role.OWNER
    assert client.session["_auth_user_id"] == str(alice.pk)
    assert AuditEntry.objects.filter(action="server.setup", actor=alice, ip="127.0.0.1").exists()


@pytest.mark.django_db
def test_the_page_shows_a_form(client: Client) -> None:
    response = client.get(link())
    assert response.status_code == 200
    assert b"Create the owner" in response.content
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db
def test_only_the_newest_link_works(client: Client) -> None:
    old, new = link(), link()
    assert client.get(old).status_code == 404
    assert client.get(new).status_code == 200
    assert client.get("/setup/guess/").status_code == 404


@pytest.mark.django_db
def test_the_token_is_not_stored(client: Client) -> None:
    token = link().split("/")[2]
    assert token not in str(FirstStart.objects.values_list())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "alice"), ("email", ""), ("name", ""), ("password", "short"), ("password", "alice@example.com")],
)
def test_a_bad_value_is_named_and_makes_nobody(client: Client, field: str, value: str) -> None:
    response = client.post(link(), OWNER | {field: value})
    assert response.status_code == 422
    assert field in response.context["form"].errors
    assert not User.objects.exists()


@pytest.mark.django_db
def test_what_was_typed_is_kept_but_the_password(client: Client) -> None:
    response = client.post(link(), OWNER | {"email": "wrong"})
    assert b'value="Alice"' in response.content
    assert OWNER["password"].encode() not in response.content


@pytest.mark.django_db
def test_extra_fields_change_nothing(client: Client) -> None:
    client.post(link(), OWNER | {"id": "0", "is_active": "", "team": "x"})
    assert User.objects.get().is_active


@pytest.mark.django_db
def test_it_is_over_once_somebody_has_an_account(client: Client) -> None:
    address = link()
    client.post(address, OWNER)
    for response in (Client().get(address), Client().post(address, OWNER | {"email": "mallory@example.com"})):
        assert response.status_code == 410
        assert b"has its owner already" in response.content
    assert User.objects.count() == 1
    assert services.setup_link() is None


def test_no_link_is_made_when_there_are_users(cast: Cast) -> None:
    assert services.setup_link() is None


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_becomes_owner() -> None:
    link()

    def try_it(number: int) -> bool:
        try:
            services.create_owner(email=f"m{number}@example.com", password="correct horse battery")
        except UserError as error:
            assert error.code == "already_set_up"
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(try_it, range(8)))
    assert won.count(True) == 1
    assert User.objects.count() == 1
