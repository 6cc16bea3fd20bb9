"""A control plane in a process of its own, to be killed or frozen: appends in a loop, says what was acknowledged.

    python -m tests.e2e.postgres_writer URL PREFIX

Each line on standard output is `request_id revision`, written only after the answer.
"""

import asyncio
import os
import sys
from itertools import count

import uvloop

from control_plane.adapters.clock import WallClock
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.adapters.postgres.snapshots import PostgresSnapshotStore
from control_plane.app.node import Node
from control_plane.core.errors import AppendOutcomeUnknown, Unavailable
from tests.contract.nodes import add
from tests.contract.toy import ToyMachine

CLIENTS = 16


async def main(url: str, prefix: str) -> None:
    """Write until killed."""
    node = Node(
        machine=ToyMachine(),
        event_log=PostgresEventLog(url),
        snapshots=PostgresSnapshotStore(url),
        leadership=PostgresLeadership(url),
        clock=WallClock(),
        snapshot_every=200,
    )
    await node.start()

    async def client(number: int) -> None:
        for turn in count():
            request_id = f"{prefix}-{number}-{turn}"
            while True:
                try:
                    answer = await node.submit(add(prefix, 1, request_id=request_id, parts=2))
                    break
                except (Unavailable, AppendOutcomeUnknown):
                    await asyncio.sleep(0.01)
            os.write(1, f"{request_id} {answer.revision}\n".encode())

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
