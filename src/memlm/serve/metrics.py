"""What Prometheus may ask for; nothing is sent anywhere."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("memlm_requests", "Requests answered.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "memlm_request_seconds", "From a request's first byte to its answer.", ["route"], registry=own
        )
        self.tokens = Counter("memlm_tokens", "Tokens of texts that came or went.", ["model", "route"], registry=own)
        self.batch = Histogram("memlm_batch_requests", "Requests in a batch.", buckets=_BATCHES, registry=own)
        self._queue = Gauge("memlm_queue_length", "Requests that wait for the model.", registry=own)

    def watch_queue(self, length: Callable[[], float]) -> None:
        """Ask for its length whenever somebody asks."""
        self._queue.set_function(length)

    @property
    def answered(self) -> int:
        """Requests, of any status."""
        samples = (sample for metric in self.requests.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
