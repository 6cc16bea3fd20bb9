"""The only module that sees everything: it puts the parts together, starts and stops them in order."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import numpy as np
import structlog
import uvloop

from control_plane import config as configuration
from control_plane.adapters.alerts.channels import channels
from control_plane.adapters.alerts.http import SafePost
from control_plane.adapters.alerts.webhook import Webhook
from control_plane.adapters.clock import WallClock
from control_plane.adapters.inbox import Inbox
from control_plane.adapters.kafka.consumer import FactConsumer
from control_plane.adapters.kafka.forwarding import KafkaFactStore
from control_plane.adapters.kafka.producer import FactProducer
from control_plane.adapters.parquet.dead_letters import SqliteDeadLetters
from control_plane.adapters.parquet.looks import SqliteLooks
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.adapters.postgres.cursors import PostgresCursors
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.adapters.postgres.snapshots import PostgresSnapshotStore
from control_plane.adapters.redis.speed_view import RedisSpeedView
from control_plane.adapters.schedulers.systems import schedulers_of
from control_plane.adapters.serving.systems import systems_of
from control_plane.api.alerts import AlertsServicer
from control_plane.api.approvals import Approvals
from control_plane.api.backtest import BacktestServicer
from control_plane.api.convert.arrivals import decoded
from control_plane.api.facts import FactsServicer
from control_plane.api.fleet import FleetServicer
from control_plane.api.graph import GraphServicer
from control_plane.api.ground_truth import GroundTruthServicer
from control_plane.api.lineage import LineageServicer
from control_plane.api.openlineage.server import LineageServer
from control_plane.api.operations import OperationsServicer
from control_plane.api.plane import Plane
from control_plane.api.policies import PolicyServicer
from control_plane.api.registry import RegistryServicer
from control_plane.api.retraining import RetrainingServicer
from control_plane.api.rollout import RolloutServicer
from control_plane.api.rules import RulesServicer
from control_plane.api.schedulers import SchedulersServicer
from control_plane.api.server import Server, Servicers
from control_plane.api.staleness import StalenessServicer
from control_plane.app.alerts import Alerts
from control_plane.app.approval_links import ApprovalLinks
from control_plane.app.breaker_watch import BreakerWatch
from control_plane.app.clock import DrivenClock
from control_plane.app.delivery import Cursors
from control_plane.app.erasure import Erasure
from control_plane.app.evaluator import Evaluator
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.intake import Intake
from control_plane.app.machine import FleetMachine
from control_plane.app.node import Node
from control_plane.app.outbox import Outbox
from control_plane.app.ports import Clock, CorruptLog, EventLog, Leadership, SnapshotStore
from control_plane.app.rollout_driver import RolloutDriver
from control_plane.app.scheduler_driver import SchedulerDriver
from control_plane.app.speed_view import SpeedPublisher
from control_plane.app.trying import Trial
from control_plane.app.uplift import UpliftWatch
from control_plane.config import Config, ConfigError
from control_plane.core.alerts.rules import FOREIGN_SECRETS
from control_plane.core.commands import Command
from control_plane.core.errors import RunwayError
from control_plane.core.state import EPOCH_START, State
from control_plane.telemetry import Metrics, configure_logging

log = structlog.get_logger()

TICK_S_DRIVEN = 0.2
"""A driven clock runs thousands of times faster than a wall clock; so must what is due by itself."""

TICK_S_WALL = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where a control plane keeps its log. All four are one database."""

    event_log: EventLog
    snapshots: SnapshotStore
    leadership: Leadership
    cursors: Cursors


def postgres_stores(url: str) -> Stores:
    """A Postgres, embedded or given."""
    return Stores(
        event_log=PostgresEventLog(url),
        snapshots=PostgresSnapshotStore(url),
        leadership=PostgresLeadership(url),
        cursors=PostgresCursors(url),
    )


class ControlPlane:
    """All parts of one control plane. `stores` and `clock` take the place of what the configuration names."""

    def __init__(self, config: Config, *, stores: Stores | None = None, clock: Clock | None = None) -> None:
        self.config = config
        driven = config.clock == "driven"
        tick_s = TICK_S_DRIVEN if driven else TICK_S_WALL
        stores = stores or postgres_stores(config.database_url)
        self.clock: Clock = clock or (DrivenClock(EPOCH_START) if driven else WallClock())
        self.metrics = Metrics()
        self.node: Node[State, Command] = Node(
            machine=FleetMachine(),
            event_log=stores.event_log,
            snapshots=stores.snapshots,
            leadership=stores.leadership,
            clock=self.clock,
            snapshot_every=config.snapshot_every,
            tick_s=tick_s,
        )
        store = _store(config, driven)
        self.ground_truth = GroundTruth(store, clock_runs=isinstance(self.clock, WallClock))
        letters = SqliteDeadLetters(config.home / "dead_letters")
        self.intake = Intake(
            ground_truth=self.ground_truth,
            letters=letters,
            state=lambda: self.node.state,
            now=self.node.now,
            decode=decoded,
        )
        _add_sources(self.intake, config)
        self.erasure = Erasure(self.ground_truth, letters, lambda: self.intake.sources)
        if config.speed_url:
            view = RedisSpeedView(config.speed_url)
            self.intake.add(SpeedPublisher(store, view, self.node.now, name=f"Redis at {_bare(config.speed_url)}"))
        self.looks = SqliteLooks(config.home / "looks.sqlite")
        self.evaluator = Evaluator(node=self.node, ground_truth=self.ground_truth, looks=self.looks, tick_s=tick_s)
        self.rollout_driver = RolloutDriver(
            node=self.node, systems=systems_of(config.serving, config.metrics), tick_s=tick_s
        )
        self.uplift = UpliftWatch(self.node, self.ground_truth)
        watch = BreakerWatch(self.node, np.random.default_rng().random)
        self.scheduler_driver = SchedulerDriver(
            node=self.node, schedulers=schedulers_of(config.schedulers), watch=watch, tick_s=tick_s
        )
        plane = Plane(self.node)
        links = ApprovalLinks(config.approval_key, _web_url(config))
        self._cursors = stores.cursors
        self.outbox, self.alerts, trial = _telling(self.node, stores.cursors, links, config, tick_s)
        self.server = Server(
            servicers=Servicers(
                registry=RegistryServicer(plane, self.ground_truth, self.evaluator.latest),
                graph=GraphServicer(plane),
                staleness=StalenessServicer(plane, self.evaluator, self.looks),
                ground_truth=GroundTruthServicer(plane, self.ground_truth, self._sources_degraded),
                retraining=RetrainingServicer(plane),
                rollout=RolloutServicer(plane),
                policies=PolicyServicer(plane),
                rules=RulesServicer(plane, self.evaluator.latest),
                facts=FactsServicer(
                    plane,
                    self.ground_truth,
                    self.intake,
                    engine=config.engine,
                    speed_view="redis" if config.speed_url else "memory",
                    erasure=self.erasure,
                ),
                fleet=FleetServicer(plane),
                lineage=LineageServicer(plane, self.evaluator.latest),
                backtest=BacktestServicer(plane, self.ground_truth),
                alerts=AlertsServicer(plane, self.alerts, self.outbox, trial),
                schedulers=SchedulersServicer(plane, watch, self.scheduler_driver),
                operations=OperationsServicer(
                    plane=plane,
                    node=self.node,
                    evaluator=self.evaluator,
                    ground_truth=self.ground_truth,
                    clock=self.clock,
                    started_at=datetime.now(UTC),
                ),
            ),
            metrics=self.metrics,
            release=plane.release,
            address=config.address,
            message_bytes_max=config.message_bytes_max,
            serve_reflection=config.reflection,
            drain_s=config.drain_s,
        )
        self.lineage = LineageServer(
            plane=plane,
            metrics=self.metrics,
            address=config.lineage_address,
            drain_s=config.drain_s,
            more=Approvals(plane, links).routes(),
        )

    def _sources_degraded(self) -> tuple[str, ...]:
        return tuple(text for source in self.intake.sources for text in source.degraded())

    async def start(self) -> None:
        """Lead, then listen, then evaluate."""
        await self.node.start()
        await self.erasure.resume(self.node.now())
        await self.server.start()
        await self.lineage.start()
        await self.evaluator.start()
        await self.outbox.start()
        await self.alerts.start()
        await self.intake.start()
        await self.rollout_driver.start()
        await self.scheduler_driver.start()
        await self.uplift.start()

    async def stop(self) -> None:
        """In the opposite order, each part to its end."""
        await self.uplift.stop()
        await self.scheduler_driver.stop()
        await self.rollout_driver.stop()
        await self.intake.stop()
        await self.lineage.stop()
        await self.server.stop()
        log.info("calls.served", **self.metrics.summary())
        await self.alerts.stop()
        await self.outbox.stop()
        await self._cursors.close()
        await self.evaluator.stop()
        await self.node.stop()
        await self.ground_truth.close()


def _add_sources(intake: Intake, config: Config) -> None:
    """Where facts come from by themselves."""
    if config.kafka_brokers and config.engine == "embedded":
        intake.add(
            FactConsumer(
                config.kafka_brokers,
                {config.kafka_predictions_topic: "predictions", config.kafka_outcomes_topic: "outcomes"},
                intake.door,
            )
        )
    if config.inbox:
        intake.add(Inbox(config.inbox, intake.file_door))


def _telling(
    node: Node[State, Command], cursors: Cursors, links: ApprovalLinks, config: Config, tick_s: float
) -> tuple[Outbox, Alerts, Trial]:
    """What tells the world of events and alerts."""
    post = SafePost()
    webhook, spoken = Webhook(post, config.web_url or "/runway"), channels(post)
    jitter = np.random.default_rng().random
    secret = _secrets(config)
    outbox = Outbox(
        node=node, cursors=cursors, sender=webhook, secret=secret, jitter=jitter, tick_s=min(tick_s, TICK_S_DRIVEN)
    )
    alerts = Alerts(
        node=node,
        cursors=cursors,
        channels=spoken,
        secret=secret,
        jitter=jitter,
        linked=links.linked,
        tick_s=tick_s,
    )
    return outbox, alerts, Trial(webhook, spoken, secret)


def _web_url(config: Config) -> str:
    """How people reach the pages; empty if there are none."""
    return config.web_url or (f"http://{config.lineage_address}" if config.lineage_address else "")


def _secrets(config: Config) -> Callable[[str], str]:
    """Reads a secret that a destination names; empty if there is none, and if it is somebody else's."""
    systems = (*config.serving, *config.schedulers, *config.metrics)
    others = {system.settings.get("secret_variable", "") for system in systems}

    def secret(variable: str) -> str:
        if not variable or variable in others or variable.startswith(FOREIGN_SECRETS):
            return ""
        return os.environ.get(variable, "").strip()

    return secret


def _bare(url: str) -> str:
    """host:port of a URL, which may hold a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _store(config: Config, driven: bool) -> ParquetFactStore:
    """The fact store of the engine. With a driven clock an hour lasts a blink: joins once a day are enough, the speed
    view answers meanwhile."""
    root = config.home / "facts"
    of = StoreConfig(join_every=timedelta(days=1 if driven else 1 / 24), tables_url=config.tables_url)
    if config.engine == "embedded":
        return ParquetFactStore(root, of)
    producer = FactProducer(config.kafka_brokers, config.kafka_predictions_topic, config.kafka_outcomes_topic)
    return KafkaFactStore(root, of, producer, job=config.spark_job)


async def run(config: Config) -> None:
    """Start, wait for a signal, stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    plane = ControlPlane(config)
    starting = asyncio.ensure_future(plane.start())
    told = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    ended: asyncio.Future[None] | None = None
    if starting.done():
        starting.result()
        gc.freeze()  # what was imported and replayed stays; later collections need not walk it
        ended = asyncio.ensure_future(plane.node.ended())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        gc.unfreeze()  # extension modules complain at exit about what was never collected
    else:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    await plane.stop()
    if ended is not None:
        await ended  # raises if the node ended by itself: whoever started this process must hear of it


def main() -> int:
    """Exit code: 0 after a signal, 1 when it cannot run, 2 for a wrong configuration."""
    try:
        config = configuration.load()
    except ConfigError as error:
        print(f"runway: {error}", file=sys.stderr)
        return 2
    configure_logging(config.log_level)
    log.info("configuration", **config.masked())
    try:
        uvloop.run(run(config))
    except (CorruptLog, RunwayError, OSError) as error:
        print(f"runway: {error}", file=sys.stderr)
        return 1
    return 0
