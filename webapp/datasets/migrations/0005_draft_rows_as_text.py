"""The rows of a draft as text, which keeps the order of keys; nobody has a draft yet."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0004_versions_and_drafts"),
    ]

    operations = [
        migrations.RemoveField(model_name="draftchange", name="shape"),
        migrations.AddField(model_name="draftchange", name="shape", field=models.TextField(blank=True, default="")),
        migrations.AddField(model_name="draftchange", name="number", field=models.PositiveIntegerField(default=0)),
    ]
