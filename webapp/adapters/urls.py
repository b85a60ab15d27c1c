"""Addresses of the app `adapters`."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
