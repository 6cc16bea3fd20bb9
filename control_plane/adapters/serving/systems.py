"""Serving systems as they are configured, by name."""

from collections.abc import Iterable, Mapping

from control_plane.adapters.serving.gateway import GatewayServing, RouteNames
from control_plane.adapters.serving.http import HttpClient
from control_plane.adapters.serving.kserve import KServeServing, ServiceNames
from control_plane.adapters.serving.kubernetes import TOKEN_FILE
from control_plane.adapters.serving.prometheus import MetricQueries, PrometheusMetrics, PrometheusQueries
from control_plane.adapters.serving.titus import TitusServing
from control_plane.adapters.serving.webhook import WebhookMetrics, WebhookServing
from control_plane.app.serving import CanaryMetrics, Serving, ServingSystem
from control_plane.config_systems import MetricsConfig, SystemConfig


def systems_of(serving: Iterable[SystemConfig], metrics: Iterable[MetricsConfig]) -> dict[str, ServingSystem]:
    """All systems, each with its source of metrics; systems may share one by name, each gets a client of its own."""
    sources = {source.name: source for source in metrics}
    return {
        system.name: ServingSystem(serving=serving_of(system), metrics=_metrics(system, sources)) for system in serving
    }


def serving_of(config: SystemConfig) -> Serving:
    """One serving system."""
    get = config.settings.get
    match config.kind:
        case "webhook":
            return WebhookServing(config.settings["url"], config.name, secret=config.secret, timeout_s=config.timeout_s)
        case "titus":
            return TitusServing(
                config.settings["address"], config.name, ca_file=get("ca_file", ""), timeout_s=config.timeout_s
            )
        case "gateway":
            told = {
                key: config.settings[key] for key in ("route", "version", "control", "rule") if key in config.settings
            }
            return GatewayServing(_kubernetes(config), get("namespace", "default"), RouteNames(**told))
        case "kserve":
            names = ServiceNames(service=get("service", "{model}"))
            return KServeServing(_kubernetes(config), get("namespace", "default"), names)
        case kind:
            raise ValueError(f"no serving system of kind {kind!r}")


def metrics_of(config: MetricsConfig) -> CanaryMetrics:
    """One source of metrics."""
    url, get = config.settings["url"], config.settings.get
    if config.kind == "webhook":
        return WebhookMetrics(url, config.name, secret=config.secret, timeout_s=config.timeout_s)
    queries = {
        name: MetricQueries(count=of["count"], sum=of["sum"], sum_squares=of.get("sum_squares", ""))
        for name, of in config.queries.items()
    }
    return PrometheusMetrics(
        url,
        config.name,
        PrometheusQueries(requests=get("requests", ""), default=queries.pop("", None), metrics=queries),
        token_file=get("token_file", ""),
        ca_file=get("ca_file", ""),
        timeout_s=config.timeout_s,
    )


def _metrics(system: SystemConfig, sources: Mapping[str, MetricsConfig]) -> CanaryMetrics | None:
    named, url = system.settings.get("metrics"), system.settings.get("metrics_url")
    if named:
        return metrics_of(sources[named])
    if url:
        return WebhookMetrics(url, system.name, secret=system.secret, timeout_s=system.timeout_s)
    return None


def _kubernetes(config: SystemConfig) -> HttpClient:
    url, get = config.settings["url"], config.settings.get
    # Inside a cluster the service account's token is where it always is; over plain HTTP nobody gets a token.
    token_file = get("token_file", TOKEN_FILE if url.startswith("https:") else "")
    return HttpClient(url, config.name, ca_file=get("ca_file", ""), token_file=token_file, timeout_s=config.timeout_s)
