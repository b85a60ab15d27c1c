"""What is done once before a start, and left alone when nothing changed."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from webapp.accounts.models import User
from webapp.adapters.models import BaseModel, BaseSource
from webapp.system import prepare


def test_nothing_waits_after_migrating(db: None) -> None:
    assert prepare.migrate() == 0


@pytest.fixture
def small_static(settings: Any, tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.css").write_text("a {}")
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "collected"
    return source


def test_static_files_are_collected_when_one_changed(small_static: Path) -> None:
    assert prepare.collect_static() is True
    assert prepare.collect_static() is False
    (small_static / "b.css").write_text("b {}")
    assert prepare.collect_static() is True
    collected = Path(django_settings.STATIC_ROOT)
    assert sorted(path.name for path in collected.glob("*.css")) == ["a.css", "b.css"]
    (small_static / "a.css").unlink()
    assert prepare.collect_static() is True
    assert [path.name for path in collected.glob("*.css")] == ["b.css"]
    os.utime(small_static / "b.css", (1, 1))
    assert prepare.collect_static() is True


def test_owner_and_demo_model_are_made_once(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEMO_MODEL = True
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "owner@example.com")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse battery")
    prepare.create_first_things()
    prepare.create_first_things()
    assert [user.email for user in User.objects.all()] == ["owner@example.com"]
    assert BaseModel.objects.filter(source=BaseSource.DEMO).count() == 1


def test_demo_model_can_be_left_out(db: None, settings: Any) -> None:
    settings.DEMO_MODEL = False
    prepare.create_first_things()
    assert not BaseModel.objects.exists()


def test_unusable_owner_is_named(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEMO_MODEL = False
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "owner@example.com")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "short")
    with pytest.raises(ImproperlyConfigured, match="DJANGO_SUPERUSER_PASSWORD"):
        prepare.create_first_things()
