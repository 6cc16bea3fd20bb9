"""A flow that writes down what it was told and ends when and how a test says."""

import json
import os
import time
from pathlib import Path

from metaflow import FlowSpec, step


class Training(FlowSpec):
    @step
    def start(self) -> None:
        told = {name.removeprefix("RUNWAY_").lower(): text for name, text in os.environ.items() if "RUNWAY_" in name}
        folder, attempt = Path(os.environ["TRAINING_FOLDER"]), told["attempt_id"]
        with (folder / f"{attempt}.told").open("a") as file:
            file.write(json.dumps(told) + "\n")
        ending = folder / f"{attempt}.end"
        while not ending.exists():
            time.sleep(0.05)
        if ending.read_text() == "FAILED":
            raise MemoryError("it failed")
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


if __name__ == "__main__":
    Training()
