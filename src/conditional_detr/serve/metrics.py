"""What the server counts and measures, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from conditional_detr.serve.batcher import BatchReport

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cdetr_requests", "Requests that were answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "cdetr_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("cdetr_requests_in_flight", "Requests that are not answered", registry=self.registry)
        self.queue = Gauge("cdetr_queue_images", "Images that are accepted and not answered", registry=self.registry)
        self.batch = Histogram(
            "cdetr_batch_images", "Images computed at once", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self.parts = Histogram(
            "cdetr_part_seconds",
            "Time of an image in a part: decode, queue, model (of its batch), encode",
            ["part"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reloads = Counter("cdetr_reloads", "Reloads of the model", ["result"], registry=self.registry)

    def note_batch(self, report: BatchReport) -> None:
        """Count a batch that was computed."""
        self.batch.observe(report.images)
        for seconds in report.waited:
            self.parts.labels("queue").observe(seconds)
        self.parts.labels("model").observe(report.computed)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
