"""URLs without streams."""

urlpatterns: list[object] = []
