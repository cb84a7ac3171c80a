"""The collector, scraped through the real client and, where it is installed, by a real Prometheus."""

import doctest
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loops import PATIENCE, free_port, loop_thread
from shared import no_other_pools

import aiopool
from aiopool import BufferPool, Pool

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from aiopool.integrations import prometheus  # noqa: E402
from aiopool.integrations._metrics import METRICS  # noqa: E402

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"


@pytest.fixture
def registry() -> Any:
    registry = prometheus_client.CollectorRegistry()
    registry.register(prometheus.PoolCollector())
    return registry


def test_a_scrape_agrees_with_stats(registry: Any) -> None:
    pool, buffers = Pool(bytearray, name='quoted "name"\n'), BufferPool(name="scraped buffers")
    pool.put(pool.get())
    view = buffers.acquire(3000)
    text = prometheus_client.generate_latest(registry).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    stats = pool.stats()
    assert samples["aiopool_pool_created_total", stats.name] == stats.created == 1
    assert samples["aiopool_pool_gets_total", stats.name, "miss"] == stats.misses
    assert samples["aiopool_pool_idle", stats.name] == stats.idle == 1
    assert samples["aiopool_buffer_in_use_bytes", "scraped buffers", "4096"] == buffers.stats().bytes_in_use == 4096
    assert samples["aiopool_buffer_requested_bytes_total", "scraped buffers", "4096"] == len(view)


def test_families_have_types_and_help(registry: Any) -> None:
    families = {family.name: family for family in registry.collect()}
    assert len(families) == len(METRICS)
    for metric in METRICS:
        name = metric.name.replace(".", "_") + ("_bytes" if metric.unit == "By" else "")
        assert (families[name].type, families[name].documentation) == (metric.kind, metric.description)


def test_registering_reads_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "stats", None)
    pool = Pool(name="not looked at")
    prometheus_client.CollectorRegistry().register(prometheus.PoolCollector())
    assert pool in aiopool.pools()


def test_a_scrape_beside_loops_that_use_the_pools(registry: Any) -> None:
    pool = Pool(bytearray, name="in use meanwhile")
    created: list[float] = []

    async def use() -> None:
        for _ in range(2000):
            with pool.borrow(), pool.borrow():
                pass

    with loop_thread() as one, loop_thread() as other:
        for _ in range(10):
            one.run(use())
            other.run(use())
            created.append(registry.get_sample_value("aiopool_pool_created_total", {"pool": "in use meanwhile"}))
    assert created == sorted(created)


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(prometheus, extraglobs={"aiopool": aiopool}).failed == 0


# --- the dashboard ---


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_uses_existing_metrics(registry: Any) -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    asked = {name for query in queries() for name in re.findall(r"aiopool_\w+", query)}
    assert asked <= names
    assert len(asked) >= 10


def test_the_dashboard_shows_all_counters(registry: Any) -> None:
    asked = " ".join(queries())
    left_out = {"aiopool.pool.puts"}  # the same as gets, in the long run
    for metric in METRICS:
        assert metric.kind == "gauge" or metric.name in left_out or metric.name.replace(".", "_") in asked


@contextmanager
def scraping(target: int, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes a port of this machine; its address."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: test, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    port = free_port()
    arguments = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data")
    with subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def ask(address: str, query: str) -> list[Any]:
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 503:
                return []  # it is starting
            raise AssertionError(f"{query}: {error.read().decode()}") from error
    except urllib.error.URLError:
        return []


@pytest.fixture
def alone() -> Iterator[None]:
    """Hide the pools of other tests: unused pools have no hit rate."""
    with no_other_pools(aiopool):
        yield


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_a_real_prometheus_answers_all_queries_of_the_dashboard(alone: None, registry: Any, tmp_path: Path) -> None:
    pool, buffers = (
        Pool(bytearray, max_idle=9, name="real"),
        BufferPool(name="real", max_size=2048, max_idle_bytes=1024),
    )

    def use() -> None:
        with pool.borrow(), pool.borrow():
            pass
        held = [buffers.acquire(size) for size in (1000, 1000, 3000)]
        held.clear()

    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        with scraping(server.server_port, tmp_path) as address:
            for query in queries():
                for variable in ("$job", "$instance", "$pool"):
                    query = query.replace(variable, ".*")
                query = query.replace("$__rate_interval", "5s")
                give_up = time.monotonic() + PATIENCE
                while not (result := ask(address, query)):
                    assert time.monotonic() < give_up, query
                    use()
                    time.sleep(0.05)  # until the next scrape: Prometheus has nothing to wait for
                assert all(float(each["value"][1]) >= 0 for each in result)
            (hits,) = ask(address, 'sum(aiopool_pool_gets_total{pool="real", result!="miss"})')
            assert 0 < float(hits["value"][1]) <= pool.stats().hits
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
