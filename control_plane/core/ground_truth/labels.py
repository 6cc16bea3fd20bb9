"""What the outcome of a prediction is, and until when it counts."""

import re
from datetime import timedelta
from typing import Literal, get_args

import msgspec

from control_plane.core.errors import Violation

Task = Literal["binary", "regression"]
LabelKind = Literal["exact", "proxy", "imputed"]
"""What an outcome is: the truth itself, a stand-in for it, or a guess at it."""

DEFAULT_LABEL_TYPE = "default"
METRICS = ("auc", "accuracy", "log_loss", "brier", "mae", "rmse")
"""What can be a primary metric."""
WINDOW_MAX = timedelta(days=90)
"""The longest attribution window: a credit default or a churned contract. Files are kept longer than that."""
OTHERS_MAX = 16
"""Further label types of one model."""

_OTHER = re.compile(r"([a-z][a-z0-9_]{0,99})\s+(\d{1,7})(s|m|h|d)((?:\s+(?:exact|proxy|imputed|absent))*)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


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
    others: str = ""
    """Further label types, as `refund 30d, click 1h proxy`; see `other_labels`."""

    @property
    def window_us(self) -> int:
        """The attribution window in microseconds."""
        return self.window // timedelta(microseconds=1)

    @property
    def primary_metric(self) -> str:
        """The metric that stands for the model's quality."""
        return self.metric or ("auc" if self.task == "binary" else "rmse")


def all_labels(spec: LabelSpec) -> tuple[tuple[LabelSpec, LabelKind], ...]:
    """The label itself, its proxy, and the others it names, each with a window of its own and what it is.

    >>> [(one.label_type, kind) for one, kind in all_labels(LabelSpec(label_type="sale", others="click 1h proxy"))]
    [('sale', 'exact'), ('click', 'proxy')]

    Raises:
        ValueError: `others` cannot be read; `label_violations` says so before it is ever stored.
    """
    alone = msgspec.structs.replace(spec, proxy="", others="")
    found: dict[str, tuple[LabelSpec, LabelKind]] = {spec.label_type: (alone, "exact")}
    if spec.proxy and spec.proxy != spec.label_type:
        found[spec.proxy] = (
            msgspec.structs.replace(
                alone, label_type=spec.proxy, window=spec.proxy_window, absence_means_negative=False
            ),
            "proxy",
        )
    for text in _parts(spec.others):
        matched = _OTHER.fullmatch(text)
        if matched is None:
            raise ValueError(f"{text[:100]!r} is no label type: write as `refund 30d` or `click 1h proxy`")
        name, number, unit, marks = matched.groups()
        words = marks.split()
        kinds: list[LabelKind] = [kind for kind in get_args(LabelKind) if kind in words]
        other = msgspec.structs.replace(
            alone,
            label_type=name,
            window=timedelta(**{_UNITS[unit]: int(number)}),
            absence_means_negative="absent" in words,
        )
        if name in found:
            raise ValueError(f"the label type {name} is named twice")
        if len(kinds) > 1:
            raise ValueError(f"{text[:100]!r} is one of {', '.join(kinds)}, not all of them")
        found[name] = (other, kinds[0] if kinds else "exact")
    return tuple(found.values())


def label_violations(spec: LabelSpec) -> list[Violation]:
    """All broken rules of a label."""
    found = []
    for field, window in (("label.window", spec.window), ("label.proxy_window", spec.proxy_window)):
        if not timedelta(0) < window <= WINDOW_MAX:
            message = f"must be above 0 and at most {WINDOW_MAX.days} days"
            found.append(Violation(field=field, rule="range", message=message))
    if spec.metric not in ("", *METRICS):
        message = f"{spec.metric[:100]!r} is not one of {', '.join(METRICS)}"
        found.append(Violation(field="label.metric", rule="metric", message=message))
    if len(_parts(spec.others)) > OTHERS_MAX:
        found.append(Violation(field="label.others", rule="count", message=f"at most {OTHERS_MAX} further label types"))
        return found
    try:
        others = all_labels(spec)
    except (ValueError, OverflowError) as error:
        return [*found, Violation(field="label.others", rule="labels", message=str(error))]
    for other, _ in others[1:]:
        if not timedelta(0) < other.window <= WINDOW_MAX and other.label_type != spec.proxy:
            message = f"the window of {other.label_type} must be above 0 and at most {WINDOW_MAX.days} days"
            found.append(Violation(field="label.others", rule="range", message=message))
    return found


def _parts(others: str) -> list[str]:
    return [part.strip() for part in others.split(",") if part.strip()]
