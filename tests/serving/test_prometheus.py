"""Canary metrics out of Prometheus: a real one with a history of our own making, and answers no real one gives."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane.adapters.serving.prometheus import MetricQueries, PrometheusMetrics, PrometheusQueries
from control_plane.app.serving import ServingRefused, ServingUnavailable
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.plan import plan_of
from control_plane.core.rollout.types import Rollout, RolloutPolicy, RolloutState
from tests.debian import program
from tests.serving.servers import HttpServer, Reply, Request

READY_S_MAX = 60.0
SPAN = timedelta(hours=1)
QUERIES = PrometheusQueries(
    requests='sum(increase(answers_total{model="$model",arm="$arm"}[$range]))',
    default=MetricQueries(
        count='sum(increase($metric_count{model="$model",arm="$arm",version="$version"}[$range]))',
        sum='sum(increase($metric_sum{model="$model",arm="$arm",version="$version"}[$range]))',
        sum_squares='sum(increase($metric_sum_squares{model="$model",arm="$arm",version="$version"}[$range]))',
    ),
    metrics={
        "clicked": MetricQueries(
            count='sum(increase(clicked_count{arm="$arm"}[$range]))',
            sum='sum(increase(clicked_sum{arm="$arm"}[$range]))',
        ),
        "nothing": MetricQueries(count="absent_metric", sum="absent_metric"),
        "not_a_number": MetricQueries(count="vector(5)", sum="vector(0) / vector(0)"),
        "several": MetricQueries(count="answers_total", sum="vector(1)"),
        "wrong": MetricQueries(count="sum(", sum="vector(1)"),
    },
)


def a_rollout(now: datetime, *metrics: str) -> Rollout:
    policy = RolloutPolicy(serving="mesh", metrics=", ".join(f"{name} higher 3%" for name in metrics))
    return Rollout(
        rollout_id=RolloutId("ro_1"),
        model_id=ModelId("m"),
        version=8,
        production_before=7,
        state=RolloutState.CANARY,
        started_at=now - SPAN,
        canary_since=now - SPAN,
        plan=plan_of(policy),
    )


def history(now: datetime) -> str:
    """An hour of counters, a sample a minute, in OpenMetrics: ten answers each, of the candidate worth 2 on average."""
    lines: list[str] = []
    begin = int((now - SPAN).timestamp()) // 60 * 60 - 120
    minutes = range(int(SPAN.total_seconds()) // 60 + 4)
    series: list[tuple[str, str, float]] = []
    for arm, version, scale in (("candidate", 8, 1.0), ("control", 7, 2.0)):
        labels = f'model="m",arm="{arm}"'
        series.append(("answers_total", labels, 10.0))
        for name, each in (("count", 10.0), ("sum", 20.0 * scale), ("sum_squares", 46.0 * scale * scale)):
            series.append((f"engagement_{name}", f'{labels},version="{version}"', each))
        for name, each in (("count", 10.0), ("sum", 4.0)):
            series.append((f"clicked_{name}", labels, each))
    for name, labels, each in series:
        lines += [f"{name}{{{labels}}} {each * minute:g} {begin + 60 * minute}" for minute in minutes]
    return "\n".join([*lines, "# EOF", ""])


@contextmanager
def prometheus(folder: Path, now: datetime) -> Iterator[str]:
    """A real Prometheus with that history."""
    server, tool = program("prometheus", "prometheus"), program("prometheus", "promtool")
    told = folder / "history.txt"
    told.write_text(history(now))
    data = folder / "data"
    made = subprocess.run(
        [tool, "tsdb", "create-blocks-from", "openmetrics", told, data], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(server),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait(30)


@pytest.mark.slow
async def test_a_real_prometheus_tells_both_arms(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with prometheus(tmp_path, now) as url:
        source = PrometheusMetrics(url, "prometheus", QUERIES)
        async with asyncio.timeout(READY_S_MAX):
            while True:
                try:
                    look = await source.read(a_rollout(now, "engagement", "clicked", "nothing", "not_a_number"), now)
                    break
                except ServingUnavailable:
                    await asyncio.sleep(0.1)
        # `increase` extrapolates to the ends of its range, so that counts are near, not exact.
        assert look.candidate_requests == pytest.approx(600, rel=0.05)
        assert look.control_requests == pytest.approx(600, rel=0.05)
        candidate, control = look.candidate["engagement"], look.control["engagement"]
        assert candidate.count == pytest.approx(600, rel=0.05)
        assert candidate.mean == pytest.approx(2.0, rel=0.01)
        assert candidate.m2 / candidate.count == pytest.approx(0.6, rel=0.05)
        assert control.mean == pytest.approx(4.0, rel=0.01)
        clicked = look.candidate["clicked"]
        assert clicked.mean == pytest.approx(0.4, rel=0.01)
        assert clicked.m2 / clicked.count == pytest.approx(0.24, rel=0.05)
        assert set(look.candidate) == set(look.control) == {"engagement", "clicked"}
        for metric, words in (("several", "aggregate them"), ("wrong", "parse error")):
            with pytest.raises(ServingRefused, match=words):
                await source.read(a_rollout(now, metric), now)
        await source.close()


NOW = datetime(2026, 3, 2, tzinfo=UTC)


async def read_with(reply: Reply) -> object:
    """What comes of one and the same answer to every query."""

    def answer(request: Request) -> Reply:
        assert (request.method, request.path) == ("POST", "/api/v1/query")
        return reply

    with HttpServer(answer) as server:
        source = PrometheusMetrics(server.url, "prometheus", QUERIES, timeout_s=5)
        try:
            return await source.read(a_rollout(NOW, "engagement"), NOW)
        finally:
            await source.close()


@pytest.mark.parametrize("reply", [(503, "starting up"), (200, "<html>"), (429, "slow down"), (200, b"\xff")])
async def test_an_answer_that_is_none_is_unavailable(reply: Reply) -> None:
    with pytest.raises(ServingUnavailable):
        await read_with(reply)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
async def test_a_value_that_is_no_number_is_no_value(value: str) -> None:
    one = {"metric": {}, "value": [1, value]}
    look = await read_with((200, {"status": "success", "data": {"resultType": "vector", "result": [one]}}))
    assert look == type(look)(at=NOW)  # type: ignore[call-arg]  # a Look without arms


async def test_a_metric_without_queries_is_refused() -> None:
    source = PrometheusMetrics("http://127.0.0.1:1", "prometheus", PrometheusQueries(metrics={}))
    with pytest.raises(ServingRefused, match="engagement"):
        await source.read(a_rollout(NOW, "engagement"), NOW)
    await source.close()
