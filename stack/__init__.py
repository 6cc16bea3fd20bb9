"""The development stack: everything `make up` starts, watches and ends."""

import os

# The narrator talks gRPC while Postgres is started again, as root under another user, which takes a real fork. gRPC's
# fork handlers crash such a child two times in five; nothing here uses gRPC in a forked child, so they are not needed.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
