"""What other policies would have done with one's own history: BacktestService."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import grpc
from runway.v1 import backtest_pb2
from runway.v1.backtest_pb2_grpc import BacktestServiceStub

from runway_client.connection import Connection
from runway_client.errors import RunwayRpcError, from_rpc_error
from runway_client.times import to_timestamp

METHOD = "BacktestService/RunBacktest"

Progress = Callable[[str, float], None]
"""Hears who runs, and the share of that run that is done."""


class Backtest:
    """Contenders side by side on recorded history. Changes nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = BacktestServiceStub(connection.channel)

    def run_backtest(
        self,
        start: datetime,
        end: datetime,
        *,
        model_ids: Iterable[str] = (),
        contenders: Iterable[backtest_pb2.Contender] = (),
        progress: Progress | None = None,
        deadline_s: float | None = None,
    ) -> backtest_pb2.BacktestReport:
        """Run [start, end) of the history; takes from seconds to minutes. Interrupting it ends it at the server too.

        Args:
            model_ids: empty takes the whole fleet.
            contenders: empty takes the current policy, every 7 and 30 days, PSI only, performance only, the oracle.
            deadline_s: None waits for as long as it takes.
        Raises:
            RunwayRpcError: the call failed.
        """
        request = backtest_pb2.RunBacktestRequest(
            start_time=to_timestamp(start),
            end_time=to_timestamp(end),
            model_ids=model_ids,
            contenders=contenders,
        )
        try:
            stream: Any = self.stub.RunBacktest(request, timeout=deadline_s)
        except ValueError as error:
            raise self._connection.closed_error(METHOD) from error
        report: backtest_pb2.BacktestReport | None = None
        try:
            for response in stream:
                if response.HasField("report"):
                    report = response.report
                elif progress is not None:
                    progress(response.progress.contender, response.progress.done)
        except grpc.RpcError as error:
            raise from_rpc_error(
                error, address=self._connection.address, method=METHOD, deadline_s=deadline_s
            ) from None
        finally:
            stream.cancel()
        if report is not None:
            return report
        raise RunwayRpcError(
            "STREAM_ENDED",
            f"the control plane at {self._connection.address} ended the backtest without a report: ask again",
            code=grpc.StatusCode.UNAVAILABLE,
            method=METHOD,
        )
