"""Examinations of an installation, for `manage.py streams doctor`. Each returns findings, and leaves nothing behind."""
