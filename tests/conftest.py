"""Settings of all tests."""

import os

from hypothesis import settings

# Tests start Postgres beside live gRPC channels, as root under another user, which takes a real fork; gRPC's fork
# handlers crash such a child now and then. Nothing here uses gRPC in a forked child. Read when gRPC is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")


# A busy machine is slow, not wrong: no test here asserts time.
settings.register_profile("runway", deadline=None)
settings.load_profile("runway")
