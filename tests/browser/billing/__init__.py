"""An app with a consumer, for pages about it."""
