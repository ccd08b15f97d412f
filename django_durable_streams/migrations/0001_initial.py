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
                ('link_rules_version', models.PositiveBigIntegerField(default=0, editable=False, help_text='Grows with each change of the rules by which new streams are linked to subscriptions.', verbose_name='version of the link rules')),
            ],
            options={
                'verbose_name': 'database identity',
                'verbose_name_plural': 'database identities',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='SigningKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField(unique=True, verbose_name='number')),
                ('kid', models.CharField(max_length=64, unique=True, verbose_name='key id')),
                ('public_key', models.CharField(help_text='The parameter x of its JWK.', max_length=64, verbose_name='public key')),
                ('private_key', models.TextField(help_text='Encrypted, if the setting WEBHOOK_KEY_SECRET was set when the key was made.', verbose_name='private key')),
                ('created_at', django_durable_streams.models.fields.InstantField(verbose_name='created at')),
                ('retired_at', django_durable_streams.models.fields.InstantField(help_text='When it stops to sign.', null=True, verbose_name='retired at')),
            ],
            options={
                'verbose_name': 'signing key',
                'verbose_name_plural': 'signing keys',
                'default_permissions': (),
                'base_manager_name': 'objects',
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
                ('link_state', models.PositiveSmallIntegerField(blank=True, choices=[(1, 'linked'), (2, 'linked, with new data')], editable=False, help_text='Whether subscriptions follow the stream, and whether it has data that they were not told of.', null=True, verbose_name='link state')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
                ('appended_at', models.DateTimeField(blank=True, null=True, verbose_name='last append at')),
                ('source', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='forks', to='durable_streams.stream', verbose_name='forked from')),
            ],
            options={
                'verbose_name': 'stream',
                'verbose_name_plural': 'streams',
                'base_manager_name': 'objects',
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
                'verbose_name': 'staged chunk',
                'verbose_name_plural': 'staged chunks',
                'base_manager_name': 'objects',
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
                'verbose_name': 'producer',
                'verbose_name_plural': 'producers',
                'base_manager_name': 'objects',
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
                'verbose_name': 'chunk',
                'verbose_name_plural': 'chunks',
                'base_manager_name': 'objects',
            },
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', django_durable_streams.models.fields.ExactCharField(help_text='Null once the subscription is deleted: its links are deleted later.', max_length=256, null=True, unique=True, verbose_name='id')),
                ('kind', models.CharField(choices=[('webhook', 'webhook'), ('pull-wake', 'pull-wake')], max_length=16, verbose_name='type')),
                ('pattern', models.CharField(blank=True, default='', max_length=512, verbose_name='pattern')),
                ('webhook_url', models.CharField(blank=True, default='', max_length=2048, verbose_name='webhook URL')),
                ('wake_stream', models.CharField(blank=True, default='', max_length=512, verbose_name='wake stream')),
                ('lease_ms', models.PositiveIntegerField(help_text='In milliseconds.', verbose_name='lease')),
                ('description', models.TextField(blank=True, default='', verbose_name='description')),
                ('config_hash', models.CharField(max_length=64, verbose_name='configuration hash')),
                ('base_url', models.CharField(default='', help_text='The root of the streams as the creating client saw it, for the URLs in webhooks.', max_length=2048, verbose_name='base URL')),
                ('is_paused', models.BooleanField(default=False, verbose_name='paused')),
                ('generation', models.PositiveBigIntegerField(default=0, verbose_name='generation')),
                ('wake_id', models.CharField(blank=True, default='', max_length=40, verbose_name='wake')),
                ('holder', models.CharField(blank=True, default='', max_length=256, verbose_name='holder')),
                ('lease_expires_at', django_durable_streams.models.fields.InstantField(blank=True, null=True, verbose_name='lease expires at')),
                ('failures', models.PositiveIntegerField(default=0, verbose_name='failed attempts')),
                ('last_error', models.TextField(blank=True, default='', verbose_name='last error')),
                ('next_attempt_at', django_durable_streams.models.fields.InstantField(blank=True, null=True, verbose_name='next attempt at')),
                ('due_at', django_durable_streams.models.fields.InstantField(blank=True, null=True, verbose_name='due at')),
                ('linked_through', models.BigIntegerField(blank=True, help_text='While existing streams are linked: the id of the last stream that was compared with the pattern.', null=True, verbose_name='linked through')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
            ],
            options={
                'verbose_name': 'subscription',
                'verbose_name_plural': 'subscriptions',
                'base_manager_name': 'objects',
                'indexes': [models.Index(condition=models.Q(('due_at__isnull', False)), fields=['due_at'], name='subscription_due_at')],
            },
        ),
        migrations.CreateModel(
            name='SubscriptionLink',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('path', django_durable_streams.models.fields.ExactCharField(max_length=512, verbose_name='path')),
                ('is_explicit', models.BooleanField(default=False, verbose_name='explicit')),
                ('is_glob', models.BooleanField(default=False, verbose_name='by pattern')),
                ('acked_position', models.PositiveBigIntegerField(null=True, verbose_name='acknowledged position')),
                ('is_pending', models.BooleanField(default=False, help_text='Whether the stream had data after the cursor when it was looked at.', verbose_name='pending')),
                ('stream', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='subscription_links', to='durable_streams.stream', verbose_name='stream')),
                ('subscription', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='links', to='durable_streams.subscription', verbose_name='subscription')),
            ],
            options={
                'verbose_name': 'subscription link',
                'verbose_name_plural': 'subscription links',
                'base_manager_name': 'objects',
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
        migrations.AddIndex(
            model_name='stream',
            index=models.Index(condition=models.Q(('link_state', 2)), fields=['link_state'], name='stream_link_state'),
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
        migrations.AddIndex(
            model_name='subscriptionlink',
            index=models.Index(condition=models.Q(('is_pending', True)), fields=['subscription', 'id'], name='subscription_link_pending'),
        ),
        migrations.AddIndex(
            model_name='subscriptionlink',
            index=models.Index(condition=models.Q(('is_explicit', True)), fields=['path'], name='subscription_link_explicit'),
        ),
        migrations.AddConstraint(
            model_name='subscriptionlink',
            constraint=models.UniqueConstraint(fields=('subscription', 'path'), name='subscription_link_path'),
        ),
    ]
