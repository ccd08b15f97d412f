"""URLs of a server with metrics."""

from config.urls import urlpatterns as of_the_example
from django.urls import path

from django_durable_streams.contrib.prometheus.views import MetricsView

TOKEN = "a-token-of-some-length"

urlpatterns = [path("metrics", MetricsView.as_view(token=TOKEN)), *of_the_example]
