"""A flow that says what it made, or fails."""

import os

from metaflow import FlowSpec, step


class Versioned(FlowSpec):
    @step
    def start(self) -> None:
        if os.environ["RUNWAY_MODEL_ID"] == "broken":
            raise MemoryError("it failed")
        self.next(self.end)

    @step
    def end(self) -> None:
        if os.environ["RUNWAY_MODEL_ID"] != "silent":
            self.runway_version = {
                "artifact_uri": f"s3://models/{os.environ['RUNWAY_ATTEMPT_ID']}",
                "artifact_sha256": "a" * 64,
                "artifact_size_bytes": 12,
                "metrics": {"auc": 0.8},
            }


if __name__ == "__main__":
    Versioned()
