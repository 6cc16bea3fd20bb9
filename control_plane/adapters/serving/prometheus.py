"""Canary metrics out of Prometheus: three instant queries per metric and arm, all at one instant.

A query is a template. `$model`, `$version`, `$arm` (`candidate` or `control`), `$metric` and `$range` (since the canary
began, as a PromQL duration) are filled in. All queries of a look carry the same `time`, so that a count and its sum
belong together. No series, or NaN, is no number, never a zero.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from control_plane.adapters.serving.http import Answer, HttpClient, raise_for
from control_plane.app.serving import ServingRefused, ServingUnavailable, arm_of
from control_plane.core.rollout.types import Arm, Look, Rollout

QUERIES_AT_ONCE_MAX = 8
RANGE_S_MIN = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricQueries:
    """How a metric is asked for. Without `sum_squares` it is of zeros and ones, whose squares are themselves."""

    count: str
    sum: str
    sum_squares: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusQueries:
    """Queries by metric, `default` for those without their own; `requests` counts what each arm was given."""

    requests: str = ""
    default: MetricQueries | None = None
    metrics: Mapping[str, MetricQueries] = field(default_factory=dict)

    def of(self, metric: str) -> MetricQueries | None:
        """The queries of one metric."""
        return self.metrics.get(metric, self.default)


class PrometheusMetrics:
    """Reads from a Prometheus, or anything that speaks its HTTP API."""

    def __init__(
        self,
        url: str,
        name: str,
        queries: PrometheusQueries,
        *,
        token_file: str = "",
        ca_file: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._http = HttpClient(url, name, ca_file=ca_file, token_file=token_file, timeout_s=timeout_s)
        self._queries = queries

    async def read(self, rollout: Rollout, now: datetime) -> Look:
        """All metrics of the plan for both arms."""
        gate = asyncio.Semaphore(QUERIES_AT_ONCE_MAX)
        names = [metric.name for metric in rollout.plan.metrics]
        missing = [name for name in names if self._queries.of(name) is None]
        if missing:
            raise ServingRefused(
                f"{self._http.who} has no queries for {', '.join(missing)}: add them to its configuration"
            )
        (candidate, candidate_requests), (control, control_requests) = await asyncio.gather(
            self._arm(rollout, "candidate", rollout.version, names, now, gate),
            self._arm(rollout, "control", rollout.production_before, names, now, gate),
        )
        return Look(
            at=now,
            candidate=candidate,
            control=control,
            candidate_requests=candidate_requests,
            control_requests=control_requests,
        )

    async def close(self) -> None:
        """Let go of its threads."""
        await self._http.close()

    async def _arm(
        self, rollout: Rollout, arm: str, version: int, names: list[str], now: datetime, gate: asyncio.Semaphore
    ) -> tuple[dict[str, Arm], int]:
        since = rollout.canary_since or rollout.started_at
        words = {
            "$model": rollout.model_id,
            "$version": str(version),
            "$arm": arm,
            "$range": f"{max(RANGE_S_MIN, math.ceil((now - since).total_seconds()))}s",
        }

        async def number(template: str, metric: str = "") -> float | None:
            if not template:
                return None
            async with gate:
                return await self._number(filled(template, {**words, "$metric": metric}), now)

        async def numbers(metric: str) -> Arm | None:
            of = self._queries.of(metric)
            assert of is not None
            count, total, squares = await asyncio.gather(
                number(of.count, metric), number(of.sum, metric), number(of.sum_squares, metric)
            )
            if count is None or total is None or (of.sum_squares and squares is None):
                return None
            return arm_of(count, total, total if squares is None else squares)

        requests, found = await asyncio.gather(
            number(self._queries.requests), asyncio.gather(*(numbers(name) for name in names))
        )
        told = {name: one for name, one in zip(names, found, strict=True) if one is not None and one.count}
        return told, round(requests or 0.0)

    async def _number(self, query: str, at: datetime) -> float | None:
        """The one number that a query gives; None for no series and for NaN.

        Raises:
            ServingRefused: the query is wrong, or gives several series.
            ServingUnavailable: Prometheus does not answer.
        """
        body = urlencode({"query": query, "time": f"{at.timestamp():.3f}"}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._http.request("POST", "/api/v1/query", body=body, headers=headers)
        return self._value(answer, query)

    def _value(self, answer: Answer, query: str) -> float | None:
        if answer.status not in {200, 400, 422}:
            raise_for(self._http.who, answer)
        told = answer.json(self._http.who)
        if not isinstance(told, dict) or told.get("status") != "success":
            error = str(told.get("error", ""))[:200] if isinstance(told, dict) else ""
            raise ServingRefused(f"{self._http.who} refuses {query!r}: {error}")
        values = _values(told.get("data"))
        if len(values) > 1:
            raise ServingRefused(f"{query!r} gives {len(values)} series where one is needed: aggregate them with sum()")
        try:
            value = float(values[0]) if values else math.nan
        except (TypeError, ValueError) as error:
            raise ServingUnavailable(f"{self._http.who} answered something that is no number") from error
        return value if math.isfinite(value) else None


def _values(data: Any) -> list[Any]:
    if not isinstance(data, dict):
        return []
    match data.get("resultType"), data.get("result"):
        case "scalar", [_, value]:
            return [value]
        case "vector", list(series):
            return [one["value"][1] for one in series if isinstance(one, dict) and "value" in one]
        case _:
            return []


def filled(template: str, words: Mapping[str, str]) -> str:
    """A template with its words in place. What is filled in comes from ids and numbers, which need no quoting.

    >>> filled('sum(x{arm="$arm"})', {"$arm": "control"})
    'sum(x{arm="control"})'
    """
    for word, text in words.items():
        template = template.replace(word, text)
    return template
