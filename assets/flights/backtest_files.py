"""What the fleet's files say of models and policies, as the control plane's own types: for backtests."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml

from assets.flights.bootstrap import FILES
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.policies import Overrides, span_text
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.staleness.policy import StalenessPolicy

SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """Facts and policies of some models."""

    models: tuple[ModelFacts, ...]
    policies: tuple[tuple[str, Overrides], ...]
    tolerance: dict[str, float]


def declared(model_ids: Sequence[str]) -> Declared:
    """What `fleet/*.yaml` says, as the control plane takes it."""
    layers: list[tuple[str, Overrides]] = [
        (entry["scope"], _flat(entry["policies"])) for entry in _entries(FILES / "policies.yaml", "policies")
    ]
    models = []
    for name in model_ids:
        entry = next(iter(_entries(FILES / "models" / f"{name}.yaml", "models")))
        models.append(
            ModelFacts(
                model_id=ModelId(name),
                owner=entry["owner"],
                team=TeamId(entry["team"]),
                tier=entry["tier"],
                task_type=TaskType(entry["task_type"].upper()),
                retrain_gpu_hours=entry.get("retrain_gpu_hours", 0.0),
            )
        )
        if "policies" in entry:
            layers.append((f"model:{name}", _flat(entry["policies"])))
    said = dict(layers)
    usual = said["fleet"].get("staleness.performance_tolerance", StalenessPolicy().performance_tolerance)
    tolerance = {
        name: float(said.get(f"model:{name}", {}).get("staleness.performance_tolerance", usual)) for name in model_ids
    }
    return Declared(models=tuple(models), policies=tuple(layers), tolerance=tolerance)


def _entries(path: Path, key: str) -> Iterable[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())[key]
    return found


def _flat(said: Mapping[str, Any], prefix: str = "") -> Overrides:
    found: Overrides = {}
    for name, value in said.items():
        if isinstance(value, Mapping):
            found = {**found, **_flat(value, f"{prefix}{name}.")}
        else:
            found = {**found, f"{prefix}{name}": _scalar(value)}
    return found


def _scalar(value: Any) -> Any:
    """Spans in files are `4h`; policies keep seconds."""
    if isinstance(value, str) and value[-1:] in SPANS and value[:-1].isdigit():
        return span_text(timedelta(seconds=int(value[:-1]) * SPANS[value[-1]]))
    return value
