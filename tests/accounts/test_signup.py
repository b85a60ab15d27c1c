"""Signing up is closed, and the page says how to get in."""

import pytest
from django.test import Client

from webapp.accounts.models import User


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["get", "post"])
def test_it_is_closed(client: Client, method: str) -> None:
    form = {"email": "mallory@example.com", "password1": "correct horse battery", "password2": "correct horse battery"}
    response = getattr(client, method)("/accounts/signup/", form)
    assert response.status_code == 200
    assert b"Accounts are by invitation" in response.content
    assert not User.objects.exists()
