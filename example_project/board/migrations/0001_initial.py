from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Card",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.CharField(max_length=120)),
                (
                    "column",
                    models.CharField(
                        choices=[("ideas", "Ideas"), ("doing", "Doing"), ("done", "Done")],
                        default="ideas",
                        max_length=8,
                    ),
                ),
                ("moved_at", models.DateTimeField(auto_now=True)),
            ],
            options={"ordering": ["moved_at", "pk"]},
        ),
    ]
