"""Allauth's forms about logging in and passwords, in the words of the other forms here."""

from typing import Any

from allauth.account import forms
from django.forms import Field

from webapp.accounts.forms import LENGTH_HINT

LABELS = {
    "login": "Email address",
    "email": "Email address",
    "oldpassword": "Current password",
    "password": "Password",
    "password1": "New password",
    "password2": "New password again",
}


class Reworded:
    """A label for each field, and no placeholder that says it again."""

    fields: dict[str, Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.label = LABELS.get(name, field.label)
            field.widget.attrs.pop("placeholder", None)
        if "password1" in self.fields:
            self.fields["password1"].help_text = LENGTH_HINT


class LoginForm(Reworded, forms.LoginForm):  # type: ignore[misc]  # allauth ships no types
    pass


class ResetPasswordForm(Reworded, forms.ResetPasswordForm):  # type: ignore[misc]
    pass


class ResetPasswordKeyForm(Reworded, forms.ResetPasswordKeyForm):  # type: ignore[misc]
    pass


class ChangePasswordForm(Reworded, forms.ChangePasswordForm):  # type: ignore[misc]
    pass


class SetPasswordForm(Reworded, forms.SetPasswordForm):  # type: ignore[misc]
    pass
