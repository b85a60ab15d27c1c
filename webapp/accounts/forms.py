"""What the pages about people and teams accept."""

from typing import Any

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest, QueryDict

from webapp.accounts.models import Role, User

LENGTH_HINT = "At least 8 characters. A few unrelated words make a good one."


def posted(request: HttpRequest) -> QueryDict | None:
    """The data of a form that was sent, also when it was sent empty."""
    return request.POST if request.method == "POST" else None


class AccountForm(forms.Form):
    """A new account: the server's owner, or somebody who was invited."""

    email = forms.EmailField(
        label="Email address",
        max_length=254,
        help_text="You log in with it.",
        widget=forms.EmailInput(attrs={"autocomplete": "username"}),
    )
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs={"autocomplete": "name"}))
    password = forms.CharField(
        label="Password",
        strip=False,
        max_length=1000,  # hashing a megabyte would be work for nothing
        help_text=LENGTH_HINT,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"].lower()
        if User.objects.filter(email=email).exists():
            raise ValidationError("There is an account with this address already. Log in with it.")
        return email

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "password" in data:
            try:
                validate_password(data["password"], User(email=data.get("email", ""), name=data.get("name", "")))
            except ValidationError as error:
                self.add_error("password", error)
        return data


class ProfileForm(forms.Form):
    name = forms.CharField(
        max_length=80,
        help_text="What others in your teams see.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )


class TeamForm(forms.Form):
    name = forms.CharField(label="Name of the team", max_length=80)


class RoleForm(forms.Form):
    """Of an invitation, or of a member."""

    role = forms.ChoiceField(choices=Role.choices, initial=Role.MEMBER)


class ApiKeyForm(forms.Form):
    name = forms.CharField(
        max_length=80,
        help_text="Where it is used, so that you know which one to revoke.",
        widget=forms.TextInput(attrs={"placeholder": "laptop"}),
    )
