"""All kinds of changes that a minor version may make: a nullable column, an index, a table that refers to streams."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("durable_streams", "0001_initial")]

    operations = [
        migrations.AddField("stream", "note", models.TextField(null=True)),
        migrations.AddField("producer", "note", models.TextField(null=True)),
        migrations.AddField("chunk", "note", models.TextField(null=True)),
        migrations.AddIndex("stream", models.Index(fields=["appended_at"], name="next_version_appended_at")),
        migrations.CreateModel(
            "Remark",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("stream", models.ForeignKey("durable_streams.stream", django.db.models.deletion.CASCADE)),
            ],
        ),
    ]
