from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('api', '0005_attempts_of_batches'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='starts',
            field=models.PositiveSmallIntegerField(default=0),
        ),
    ]
