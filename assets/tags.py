"""Names that the sensors, the launcher, the coordinator and the op of a model share."""

import json
from collections.abc import Mapping

SCHEDULER = "dagster"
"""Our name in leases and in the audit log."""

TRAINER_SOURCE = "trainer"
"""The source of the lineage that trainers tell."""

ATTEMPT_TAG = "runway/attempt"
RETRAIN_TAG = "runway/retrain"
LEASE_TAG = "runway/lease"
"""The lease token. It fences, it does not authenticate: whoever can read runs can already launch them."""
MODEL_TAG = "runway/model"
TEAM_TAG = "runway/team"
TIER_TAG = "runway/tier"
LIFECYCLE_TAG = "runway/lifecycle"
CAUSES_TAG = "runway/causes"
DATA_UNTIL_TAG = "runway/data_until"
RESOURCE_CLASS_TAG = "runway/resource_class"
MEMORY_SCALE_TAG = "runway/memory_scale"
"""How many times its usual memory the training shall have: an earlier attempt ran out of it."""
GROUP_TAG = "runway/group"
PROBE_TAG = "runway/probe"
ROLLOUT_TAG = "runway/rollout"
VERSION_TAG = "runway/version"
CHECK_TAG = "runway/check"
"""Name of the check that a run makes of a candidate."""
PRIORITY_TAG = "dagster/priority"

WORKER_TAG = "runway/worker"
"""Process id of a run's worker: a run that failed without one was never started."""

EXIT_TAG = "runway/exit"
"""How a run's worker ended, if not well: its exit code, or minus the signal that killed it."""

ONLY_MODELS_VARIABLE = "RUNWAY_ONLY_MODELS"
"""Set for a worker: JSON list of the models it runs. It loads those and nothing else."""

OFFLINE_VALIDATION = "offline_validation"
FRESH = "fresh"

TIERS = (1, 2, 3, 4)


def op_name(model_id: str) -> str:
    """Name of the op that retrains a model."""
    return f"retrain__{model_id}"


def run_priority(tier: int) -> str:
    """Dagster's priority of a tier: larger goes first."""
    return str(10 * (TIERS[-1] - tier + 1))


def only_models(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The models this process is restricted to; None if it is not a worker."""
    text = environment.get(ONLY_MODELS_VARIABLE)
    return None if not text else tuple(str(model_id) for model_id in json.loads(text))
