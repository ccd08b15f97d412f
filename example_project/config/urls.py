from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("v1/stream/", include("django_durable_streams.urls")),
    path("", include("demo.urls")),
]
