"""The first migration, as it was released."""

from importlib import import_module

Migration = import_module("django_durable_streams.migrations.0001_initial").Migration
