"""Addresses of the app `chat`."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
