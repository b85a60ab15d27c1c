"""Addresses of the app `chat`."""

from django.urls import URLPattern, path

from webapp.chat import views

urlpatterns: list[URLPattern] = [
    path("", views.chat, name="chat"),
    path("<uuid:pk>/", views.conversation, name="conversation"),
    path("<uuid:pk>/settings/", views.conversation_settings, name="conversation_settings"),
    path("<uuid:pk>/delete/", views.conversation_delete, name="conversation_delete"),
    path("<uuid:pk>/turns/", views.turn_new, name="turn_new"),
    path("turns/<uuid:pk>/events/", views.turn_stream, name="turn_stream"),
    path("turns/<uuid:pk>/stop/", views.turn_stop, name="turn_stop"),
    path("turns/<uuid:pk>/retry/", views.turn_retry, name="turn_retry"),
]
