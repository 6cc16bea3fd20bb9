"""What the outcome of a prediction is, and until when it counts."""

from datetime import timedelta
from typing import Literal

import msgspec

Task = Literal["binary", "regression"]

DEFAULT_LABEL_TYPE = "default"
METRICS = ("auc", "accuracy", "log_loss", "brier", "mae", "rmse")
"""What can be a primary metric."""
WINDOW_MAX = timedelta(days=90)
"""The longest attribution window: a credit default or a churned contract. Files are kept longer than that."""


class LabelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One label of a model.

    An outcome counts if it was observed at most `window` after the prediction, inclusive, to the microsecond. One
    observed before the prediction counts too: clocks differ, and some truths are early.

    With `absence_means_negative` a prediction whose window ended without an outcome counts as 0 (a click that never
    came); otherwise it stays unknown and only lowers coverage.
    """

    label_type: str = DEFAULT_LABEL_TYPE
    task: Task = "binary"
    window: timedelta = timedelta(days=7)
    absence_means_negative: bool = False
    metric: str = ""
    """Primary metric; empty takes the task's own: `auc` for binary, `rmse` for regression."""
    proxy: str = ""
    """Label type of a stand-in that arrives sooner (a click for a purchase); empty is none."""
    proxy_window: timedelta = timedelta(days=1)
    """Until when an outcome of the proxy counts."""

    @property
    def window_us(self) -> int:
        """The attribution window in microseconds."""
        return self.window // timedelta(microseconds=1)

    @property
    def primary_metric(self) -> str:
        """The metric that stands for the model's quality."""
        return self.metric or ("auc" if self.task == "binary" else "rmse")
