"""Addresses of the app `accounts`. Of allauth's only those are here that this server offers."""

from allauth.account import views as allauth
from django.urls import path, re_path
from django.views.decorators.http import require_http_methods

from webapp.accounts import entry, views

# allauth's views take a PUT for a POST.
page = require_http_methods(["GET", "HEAD", "POST"])

urlpatterns = [
    # Logging in, by allauth
    path("accounts/login/", page(allauth.login), name="account_login"),
    path("accounts/logout/", page(allauth.logout), name="account_logout"),
    path("accounts/signup/", page(allauth.signup), name="account_signup"),  # always closed; says how to get in
    path("accounts/inactive/", page(allauth.account_inactive), name="account_inactive"),
    path("accounts/password/change/", page(allauth.password_change), name="account_change_password"),
    path("accounts/password/set/", page(allauth.password_set), name="account_set_password"),
    path("accounts/password/reset/", page(allauth.password_reset), name="account_reset_password"),
    path("accounts/password/reset/done/", page(allauth.password_reset_done), name="account_reset_password_done"),
    re_path(
        r"^accounts/password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        page(allauth.password_reset_from_key),
        name="account_reset_password_from_key",
    ),
    path(
        "accounts/password/reset/key/done/",
        page(allauth.password_reset_from_key_done),
        name="account_reset_password_from_key_done",
    ),
    # Getting an account
    path("setup/<str:token>/", entry.setup, name="setup"),
    path("invitations/<str:token>/", entry.invitation, name="invitation"),
    # Teams
    path("teams/", views.teams, name="teams"),
    path("teams/<slug:slug>/", views.team, name="team"),
    path("teams/<slug:slug>/switch/", views.team_switch, name="team_switch"),
    path("teams/<slug:slug>/rename/", views.team_rename, name="team_rename"),
    path("teams/<slug:slug>/leave/", views.team_leave, name="team_leave"),
    path("teams/<slug:slug>/delete/", views.team_delete, name="team_delete"),
    path("teams/<slug:slug>/invite/", views.team_invite, name="team_invite"),
    path("teams/<slug:slug>/invitations/<uuid:pk>/delete/", views.invitation_delete, name="invitation_delete"),
    path("teams/<slug:slug>/members/<uuid:pk>/role/", views.member_role, name="member_role"),
    path("teams/<slug:slug>/members/<uuid:pk>/remove/", views.member_remove, name="member_remove"),
    # Oneself
    path("settings/", views.settings, name="settings"),
    path("settings/keys/", views.api_key_new, name="api_key_new"),
    path("settings/keys/<uuid:pk>/revoke/", views.api_key_revoke, name="api_key_revoke"),
]
