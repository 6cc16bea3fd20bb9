"""Logs and metrics. Metrics are plain counters; the server logs them when it stops."""

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Callable

import structlog

Observe = Callable[[str, float], None]


class Metrics:
    """Counts and seconds of calls by method and status code."""

    def __init__(self) -> None:
        self.calls_total: Counter[tuple[str, str]] = Counter()
        self.seconds_total: defaultdict[str, float] = defaultdict(float)

    def calls(self, method: str) -> Observe:
        """What a call of `method` reports its end to."""

        def observe(code: str, seconds: float) -> None:
            self.calls_total[method, code] += 1
            self.seconds_total[method] += seconds

        return observe

    def summary(self) -> dict[str, str]:
        """Calls by method: how many, how many of them failed, and milliseconds on average."""
        lines = {}
        for method in sorted(self.seconds_total):
            count = sum(times for (name, _), times in self.calls_total.items() if name == method)
            failed = count - self.calls_total[method, "OK"]
            mean_ms = 1000 * self.seconds_total[method] / count
            lines[method.rpartition(".")[2]] = f"{count} calls, {failed} failed, {mean_ms:.2f} ms"
        return lines


def configure_logging(level: str) -> None:
    """One line per event on stderr: for people on a terminal, JSON otherwise."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
