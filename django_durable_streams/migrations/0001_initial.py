import django.db.models.deletion
import django.utils.timezone
import django_durable_streams.models.fields
import django_durable_streams.models.identity
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='DatabaseIdentity',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('value', models.CharField(default=django_durable_streams.models.identity.new_identity, editable=False, max_length=32, verbose_name='value')),
            ],
            options={
                'verbose_name': 'database identity',
                'verbose_name_plural': 'database identities',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Stream',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('path', django_durable_streams.models.fields.ExactCharField(editable=False, max_length=512, null=True, unique=True, verbose_name='path')),
                ('content_type', models.CharField(default='application/octet-stream', max_length=255, verbose_name='content type')),
                ('generation', models.PositiveBigIntegerField(default=0, editable=False, help_text='What its offsets begin with. See `protocol.offsets`.', verbose_name='generation')),
                ('tail_position', models.PositiveBigIntegerField(db_column='tail', default=0, help_text='Position after the last byte, as the data is stored.', verbose_name='tail')),
                ('first_position', models.PositiveBigIntegerField(default=0, help_text='Data before this position was dropped.', verbose_name='first retained position')),
                ('closed', models.BooleanField(default=False, verbose_name='closed')),
                ('closed_by', models.CharField(blank=True, default='', help_text='Epoch, sequence number and id of the producer whose request closed the stream.', max_length=296, verbose_name='closed by')),
                ('last_seq', django_durable_streams.models.fields.ExactCharField(blank=True, max_length=256, null=True, verbose_name='last Stream-Seq')),
                ('ttl', models.PositiveBigIntegerField(blank=True, help_text='Seconds of idle life.', null=True, verbose_name='TTL')),
                ('expires_at', django_durable_streams.models.fields.InstantField(blank=True, help_text='As the creator asked.', null=True, verbose_name='expires at')),
                ('deadline', django_durable_streams.models.fields.InstantField(blank=True, help_text='When the stream ends, from its TTL or its expiry.', null=True, verbose_name='deadline')),
                ('fork_position', models.PositiveBigIntegerField(blank=True, null=True, verbose_name='fork position')),
                ('lineage', models.JSONField(blank=True, editable=False, help_text='The ranges of other streams that a fork begins with, in order (see store.read.lineage).', null=True, verbose_name='lineage')),
                ('deleted_at', django_durable_streams.models.fields.InstantField(blank=True, null=True, verbose_name='deleted at')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
                ('appended_at', models.DateTimeField(blank=True, null=True, verbose_name='last append at')),
                ('source', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='forks', to='durable_streams.stream', verbose_name='forked from')),
            ],
            options={
                'base_manager_name': 'objects',
                'verbose_name': 'stream',
                'verbose_name_plural': 'streams',
            },
        ),
        migrations.CreateModel(
            name='StagedChunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start', models.PositiveBigIntegerField(verbose_name='start')),
                ('end', models.PositiveBigIntegerField(verbose_name='end')),
                ('data', models.BinaryField(verbose_name='data')),
                ('ends', models.BinaryField(default=b'', help_text="Where each append ends, from the chunk's start: 32-bit little-endian. Empty: one append.", verbose_name='ends')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
                ('block', models.BigIntegerField(verbose_name='block')),
                ('stream', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='staged_chunks', to='durable_streams.stream', verbose_name='stream')),
            ],
            options={
                'base_manager_name': 'objects',
                'verbose_name': 'staged chunk',
                'verbose_name_plural': 'staged chunks',
            },
        ),
        migrations.CreateModel(
            name='Producer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('producer_id', django_durable_streams.models.fields.ExactCharField(max_length=257, verbose_name='producer id')),
                ('epoch', models.PositiveBigIntegerField(verbose_name='epoch')),
                ('seq', models.BigIntegerField(help_text='The last one accepted; -1 before the first.', verbose_name='sequence number')),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='updated at')),
                ('stream', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='producers', to='durable_streams.stream', verbose_name='stream')),
            ],
            options={
                'base_manager_name': 'objects',
                'verbose_name': 'producer',
                'verbose_name_plural': 'producers',
            },
        ),
        migrations.CreateModel(
            name='Chunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start', models.PositiveBigIntegerField(verbose_name='start')),
                ('end', models.PositiveBigIntegerField(verbose_name='end')),
                ('data', models.BinaryField(verbose_name='data')),
                ('ends', models.BinaryField(default=b'', help_text="Where each append ends, from the chunk's start: 32-bit little-endian. Empty: one append.", verbose_name='ends')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
                ('stream', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='chunks', to='durable_streams.stream', verbose_name='stream')),
            ],
            options={
                'base_manager_name': 'objects',
                'verbose_name': 'chunk',
                'verbose_name_plural': 'chunks',
            },
        ),
        migrations.AddIndex(
            model_name='stream',
            index=models.Index(condition=models.Q(('deadline__isnull', False)), fields=['deadline'], name='stream_deadline'),
        ),
        migrations.AddIndex(
            model_name='stream',
            index=models.Index(condition=models.Q(('deleted_at__isnull', False)), fields=['deleted_at'], name='stream_deleted_at'),
        ),
        migrations.AddIndex(
            model_name='stream',
            index=models.Index(condition=models.Q(('source__isnull', False)), fields=['source'], name='stream_source'),
        ),
        migrations.AddConstraint(
            model_name='stagedchunk',
            constraint=models.UniqueConstraint(fields=('block', 'stream', 'end'), name='staged_block_stream_end'),
        ),
        migrations.AddConstraint(
            model_name='producer',
            constraint=models.UniqueConstraint(fields=('stream', 'producer_id'), name='producer_stream_id'),
        ),
        migrations.AddConstraint(
            model_name='chunk',
            constraint=models.UniqueConstraint(fields=('stream', 'end'), name='chunk_stream_end'),
        ),
    ]
