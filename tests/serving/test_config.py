"""Serving systems in the configuration: what is read, and what is said of mistakes."""

from pathlib import Path

import pytest

from control_plane.adapters.serving.gateway import GatewayServing
from control_plane.adapters.serving.kserve import KServeServing
from control_plane.adapters.serving.prometheus import PrometheusMetrics
from control_plane.adapters.serving.systems import systems_of
from control_plane.adapters.serving.titus import TitusServing
from control_plane.adapters.serving.webhook import WebhookMetrics, WebhookServing
from control_plane.config import Config, ConfigError, load
from stack.programs import demo_serving

REQUIRED = {"RUNWAY_DATABASE_URL": "postgresql://u@h/d", "HOOK_SECRET": "hush-hush"}

EVERYTHING = """
[serving.demo]
kind = "webhook"
url = "http://127.0.0.1:7435/weights"
metrics_url = "http://127.0.0.1:7435/metrics"
secret_variable = "HOOK_SECRET"
timeout_s = 2

[serving.capacity]
kind = "titus"
address = "titus.example:7104"
metrics = "prom"

[serving.mesh]
kind = "gateway"
url = "http://127.0.0.1:8001"
namespace = "ml"
version = "{model}-{version}"
metrics = "prom"

[serving.inference]
kind = "kserve"
url = "https://kubernetes.default.svc"
namespace = "ml"

[metrics.prom]
kind = "prometheus"
url = "http://127.0.0.1:9090"
requests = 'sum(increase(answers_total{arm="$arm"}[$range]))'
count = 'sum(increase($metric_count{arm="$arm"}[$range]))'
sum = 'sum(increase($metric_sum{arm="$arm"}[$range]))'
sum_squares = 'sum(increase($metric_sum_squares{arm="$arm"}[$range]))'

[metrics.prom.queries.clicked]
count = 'sum(increase(clicked_count{arm="$arm"}[$range]))'
sum = 'sum(increase(clicked_sum{arm="$arm"}[$range]))'
"""


def loaded(text: str, folder: Path) -> Config:
    file = folder / "runway.toml"
    file.write_text(text)
    return load({**REQUIRED, "RUNWAY_CONFIG": str(file)})


async def test_every_kind_of_system_is_made_as_configured(tmp_path: Path) -> None:
    config = loaded(EVERYTHING, tmp_path)
    systems = systems_of(config.serving, config.metrics)
    kinds = {name: (type(one.serving), type(one.metrics)) for name, one in systems.items()}
    assert kinds == {
        "demo": (WebhookServing, WebhookMetrics),
        "capacity": (TitusServing, PrometheusMetrics),
        "mesh": (GatewayServing, PrometheusMetrics),
        "inference": (KServeServing, type(None)),
    }
    for one in systems.values():
        await one.serving.close()
        if one.metrics is not None:
            await one.metrics.close()


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = loaded(EVERYTHING, tmp_path)
    assert config.serving[0].secret == "hush-hush"
    assert "hush-hush" not in str(config.masked()) + repr(config)


def test_the_environment_says_the_same_as_toml() -> None:
    variables = {**REQUIRED, "RUNWAY_SERVING": demo_serving("http://127.0.0.1:1"), "RUNWAY_SERVING_SECRET": "x"}
    (demo,) = load(variables).serving
    assert (demo.name, demo.kind, demo.secret) == ("demo", "webhook", "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("serving = 3", "must be tables by name"),
        ("[serving]\ndemo = 3", r"serving.demo must be a table"),
        ("[serving.Demo]\nkind = 'webhook'", "small letters"),
        ("[serving.demo]\nkind = 'webhok'", "gateway, kserve, titus, webhook"),
        ("[serving.demo]\nkind = 'webhook'", "lacks url"),
        ("[serving.demo]\nkind = 'titus'", "lacks address"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'localhost'", "write http://host:port/path"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'http://u:p@h/'", "secret_variable"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'http://h/'\nurls = 'x'", "did you mean url"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'http://h/'\nsecret_variable = 'GONE'", "GONE .* is not set"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'http://h/'\nmetrics = 'prom'", r"names no \[metrics.prom\]"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 'http://h/'\ntimeout_s = 0", "timeout_s"),
        ("[serving.demo]\nkind = 'webhook'\nurl = 7", "must be text"),
        ("[serving.demo]\nkind = 'gateway'\nurl = 'https://h/'\ntoken_file = '/nowhere/token'", "there is no file"),
        ("[metrics.prom]\nkind = 'prometheus'\nurl = 'http://h/'", "has no queries"),
        ("[metrics.prom]\nkind = 'prometheus'\nurl = 'http://h/'\ncount = 'x'", "needs count and sum"),
        ("[metrics.prom]\nkind = 'prometheus'", "lacks url"),
    ],
)
def test_a_mistake_is_told_with_where_and_what_to_write(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(text, tmp_path)


def test_a_variable_that_is_no_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match="RUNWAY_SERVING is not TOML"):
        load({**REQUIRED, "RUNWAY_SERVING": "demo ="})
