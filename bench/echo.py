"""The least that grpc.aio can do: a server that answers each call with one fixed message. `python -m bench.echo BYTES`.

It neither parses nor builds a message; what a servicer adds on top is what the comparison is about.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"


async def serve(reply: bytes) -> None:
    """Listen on a free loopback port, print it, answer until killed."""

    async def echo(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return reply

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _forever() -> None:
    await asyncio.shield(serve(bytes(int(sys.argv[1]))))


if __name__ == "__main__":
    uvloop.run(_forever())
