"""Optional apps on top of streams. Each has its own entry in INSTALLED_APPS, and no other room imports them."""
