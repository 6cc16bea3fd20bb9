"""Every message and enum value of the contract under one name: `messages.Model`, `messages.TIER_1`.

Code outside the clients (assets, stack) takes them from here, so that only this package knows where stubs live.
"""

from runway.v1.alerts_pb2 import *  # noqa: F403
from runway.v1.backtest_pb2 import *  # noqa: F403
from runway.v1.common_pb2 import *  # noqa: F403
from runway.v1.errors_pb2 import *  # noqa: F403
from runway.v1.facts_pb2 import *  # noqa: F403
from runway.v1.fleet_pb2 import *  # noqa: F403
from runway.v1.graph_pb2 import *  # noqa: F403
from runway.v1.ground_truth_pb2 import *  # noqa: F403
from runway.v1.lineage_pb2 import *  # noqa: F403
from runway.v1.operations_pb2 import *  # noqa: F403
from runway.v1.policies_pb2 import *  # noqa: F403
from runway.v1.registry_pb2 import *  # noqa: F403
from runway.v1.retraining_pb2 import *  # noqa: F403
from runway.v1.rollout_pb2 import *  # noqa: F403
from runway.v1.rules_pb2 import *  # noqa: F403
from runway.v1.schedulers_pb2 import *  # noqa: F403
from runway.v1.staleness_pb2 import *  # noqa: F403
