"""Which release's code made the survey of a version, so that older ones are made again."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('datasets', '0005_draft_rows_as_text'),
    ]

    operations = [
        migrations.AddField(
            model_name='datasetversion',
            name='survey_version',
            field=models.PositiveSmallIntegerField(default=0),
        ),
    ]
