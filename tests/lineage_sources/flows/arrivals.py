"""A flow that reads artifacts of other flows inside its steps; may fail once, for a resume."""

import os

from metaflow import Flow, FlowSpec, namespace, step
from runway_lineage.steps import runway_lineage


class Arrivals(FlowSpec):
    @step
    @runway_lineage
    def start(self):
        namespace(None)
        self.size = len(Flow("Routes").latest_successful_run.data.vectors)
        _ = Flow("Plain").latest_successful_run["end"].task["model"].data
        self.next(self.end)

    @runway_lineage
    @step
    def end(self):
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
