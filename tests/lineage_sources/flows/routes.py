"""A flow with a foreach: says in its branches what it reads, and which artifact is which model."""

from typing import Any

from metaflow import FlowSpec, step


class Routes(FlowSpec):
    @step
    def start(self) -> None:
        self.runway_reads = ["dataset:schedule", "s3://lake/airports"]
        self.runway_produces = {
            "vectors": "model:route_embedding",
            "means": "model:route_embedding",
            "report": "dataset:route_report",
        }
        self.vectors = [0.1, 0.2]
        self.report = "fine"
        self.parts = ["east", "west"]
        self.next(self.fit, foreach="parts")

    @step
    def fit(self) -> None:
        self.runway_reads = [f"feature:{self.input}"]
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.vectors = inputs[0].vectors
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


if __name__ == "__main__":
    Routes()
