"""What a worker serves over HTTP, as Prometheus and an orchestrator see it."""

from __future__ import annotations

import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.waiting import wait_until

START_SECONDS = 30
Samples = dict[tuple[str, tuple[str, ...]], float]


class Exporter:
    """The exporter of a worker that is started with `env`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.env = {"FLASHSALE_METRICS_PORT": str(self.port)}

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def scrape(self) -> Samples:
        """Values by name and labels' values; none where nobody listens."""
        return {
            (sample.name.removeprefix("flashsale_"), tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }

    def scrape_settled(self, deliveries: int) -> Samples:
        """The values, as soon as so many are settled."""
        samples: Samples = {}

        def are_settled() -> bool:
            nonlocal samples
            samples = self.scrape()
            return settled(samples) == deliveries

        wait_until(are_settled, START_SECONDS, f"{deliveries} deliveries show as settled")
        return samples

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200, START_SECONDS, "the worker is ready")


def settled(samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == "settled_total")
