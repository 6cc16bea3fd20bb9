"""A flow that reads artifacts of other flows inside its steps; may fail once, for a resume."""

import os

from metaflow import Flow, FlowSpec, namespace, step
from runway_lineage.steps import runway_lineage


class Arrivals(FlowSpec):
    @step
    @runway_lineage
    def start(self) -> None:
        namespace(None)
        routes, plain = Flow("Routes").latest_successful_run, Flow("Plain").latest_successful_run
        assert routes is not None and routes.data is not None and plain is not None
        self.size = len(routes.data.vectors)
        end = plain["end"].task
        assert end is not None
        _ = end["model"].data
        self.next(self.end)

    @runway_lineage
    @step
    def end(self) -> None:
        if os.environ.get("FAIL"):
            raise RuntimeError("asked to")
        namespace(None)
        # An earlier run of its own is no dependency.
        for run in Flow("Arrivals"):
            if run.successful:
                _ = run.data.size
        self.runway_produces = ["model:arrival_delay"]


if __name__ == "__main__":
    Arrivals()
