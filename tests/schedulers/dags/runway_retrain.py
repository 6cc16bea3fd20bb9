"""A training that writes down what it was told and ends when and how a test says; parsed by the real Airflow."""

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

FOLDER = Path(os.environ["TRAINING_FOLDER"])


def training(name: str) -> None:
    @dag(dag_id=name, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=16)
    def retrain() -> None:
        @task
        def train(**context: Any) -> None:
            conf = context["dag_run"].conf
            attempt = conf["attempt_id"]
            with (FOLDER / f"{attempt}.told").open("a") as file:
                file.write(json.dumps(conf) + "\n")
            ending = FOLDER / f"{attempt}.end"
            while not ending.exists():
                time.sleep(0.05)
            if ending.read_text() == "FAILED":
                raise MemoryError("it failed")

        train()

    retrain()


training("runway_retrain")
training("runway_paused")
