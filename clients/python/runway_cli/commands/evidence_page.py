"""What a look at a model saw, as people read it: sentences, tables, a chart of the score and bars of the drift."""

import os
import sys
from collections.abc import Sequence

from runway_client import messages

from runway_cli.commands.rules import action_word
from runway_cli.line_chart import WIDTH_MAX, Point, bar, line_chart
from runway_cli.page import Column, Page, printable
from runway_cli.session import Session
from runway_cli.words import clock, enum_word, instant_of, number, share, version_word, when

ACTIONS = {
    "RETRAIN": "Retrain it.",
    "ALERT_DATA_OWNER": "Ask the owner of the data; a retrain on broken data mends nothing.",
    "WAIT": "Wait for the next looks.",
    "NONE": "Nothing.",
}
"""Recommended actions in words; an unknown one is shown as it is."""
BARS_MAX = 3
"""Features of which a bar is drawn."""
BAR_WIDTH = 24
WIDTH_PIPED = 80


def speaks_unicode() -> bool:
    """May dots and blocks be printed here? Not where stdout is ASCII, or the terminal can do nothing."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return encoding.startswith("utf") and os.environ.get("TERM") != "dumb"


def verdict_words(session: Session, standing: messages.Staleness) -> str:
    """Verdict, and since when."""
    words = f"{standing.model_id} is {enum_word(messages.Verdict, standing.verdict)}"
    since = instant_of(standing, "verdict_since")
    return words if since is None else f"{words} since {clock(since)} ({when(since, session.now)})"


def verdict_sentence(session: Session, standing: messages.Staleness) -> str:
    """Verdict, since when, score with its bounds, and confidence in one sentence."""
    sentence = verdict_words(session, standing)
    if not standing.HasField("evaluation"):
        return sentence + "; it has not been evaluated yet."
    seen = standing.evaluation
    sentence += f": score {number(seen.score, 3)}, stale from {number(seen.threshold, 3)}"
    if seen.score_low != seen.score_high:
        sentence += (
            f", between {number(seen.score_low, 3)} and {number(seen.score_high, 3)} if missing signals were known"
        )
    sentence += f"; confidence {enum_word(messages.Confidence, seen.confidence)}"
    if seen.confidence_reason:
        sentence += f" ({seen.confidence_reason.rstrip('.')})"
    sentence += (
        f". Version {version_word(seen.version)}, evaluated {when(instant_of(seen, 'evaluated_at'), session.now)}."
    )
    return sentence


def show_evidence(session: Session, standing: messages.Staleness) -> None:
    """Signals, metrics, drifted features, slices, upstreams; what is ahead, what rules make of it, what to do."""
    page = session.page
    if not standing.HasField("evaluation"):
        return
    seen = standing.evaluation
    _signals(page, seen)
    _metrics(page, seen.metrics)
    _features(page, "most drifted features", seen.top_features)
    _slices(page, seen.slices)
    _upstreams(page, seen.upstreams)
    _sentences(page, "hard triggers", seen.hard_triggers)
    _sentences(page, "reasons", seen.reasons)
    _sentences(page, "data quality", seen.data_quality)
    _sentences(page, "season", [seen.season.explanation] if seen.HasField("season") else [])
    _sentences(page, "forecast", _forecast(session, seen))
    _sentences(page, "what would change it", [change.sentence for change in seen.would_change])
    if standing.HasField("rules"):
        _sentences(page, "rules", _rules(session, standing.rules))
    if seen.recommended_action:
        page.heading("what to do")
        page.prose(ACTIONS.get(seen.recommended_action, seen.recommended_action))
    if seen.evidence_sha256:
        page.line()
        page.prose(
            f"Its evidence is kept: `runway staleness replay {standing.model_id}` makes a look again from it.",
            style="dim",
        )


def show_charts(page: Page, looks: Sequence[messages.Evaluation], seen: messages.Evaluation | None) -> None:
    """The score over time with its threshold, and the most drifted features of one look."""
    unicode = speaks_unicode()
    width = min(page.width or WIDTH_PIPED, WIDTH_MAX)
    points = [
        Point(at, look.score, version_word(look.version))
        for look in looks
        if look.level != messages.Verdict.VERDICT_UNKNOWN and (at := instant_of(look, "evaluated_at")) is not None
    ]
    newest = seen if seen is not None else next(iter(looks), None)
    threshold = newest.threshold if newest is not None else 0.0
    lines = line_chart(points, threshold, width=width, unicode=unicode)
    if lines:
        page.heading(f"score over time, stale from {number(threshold, 3)}")
        for line in lines:
            page.line(line)
    features = [one for one in seen.top_features if one.psi > 0][:BARS_MAX] if seen is not None else []
    if not features:
        return
    page.heading("PSI of the most drifted features")
    left = max(len(printable(one.name)) for one in features)
    whole = max(one.psi for one in features)
    for one in features:
        drawn = bar(one.psi, whole, min(BAR_WIDTH, max(8, width - left - 30)), unicode=unicode)
        note = "drifted" if one.drifted else "not significant"
        note += ", usual for the season" if one.seasonally_expected else ""
        page.line(f"{printable(one.name).ljust(left)}  {drawn} {number(one.psi, 2)} {note}")


def source_word(reading: messages.MetricReading) -> str:
    """What a metric was measured on."""
    word = enum_word(messages.PerformanceSource, reading.source).lower()
    if not reading.proxy:
        return word
    together = f", r = {number(reading.proxy_correlation, 2)}" if reading.HasField("proxy_correlation") else ""
    return f"{word} {reading.proxy}{together}"


def _signals(page: Page, seen: messages.Evaluation) -> None:
    if not seen.signals:
        return
    page.heading("signals")
    page.table(
        [
            Column(title="SIGNAL"),
            Column(title="VALUE", right=True),
            Column(title="WEIGHT", right=True, spare=2),
            Column(title="ADDS", right=True),
            Column(title="ROWS", right=True, spare=3),
            Column(title="SIGNIFICANT", spare=1),
            Column(title="WHAT IT SAYS", prose=True),
        ],
        [_signal_row(signal) for signal in sorted(seen.signals, key=lambda s: (s.missing, -s.contribution))],
    )
    if seen.weighted_average or seen.noisy_or:
        page.line(f"weighted average {number(seen.weighted_average, 3)}, noisy-OR {number(seen.noisy_or, 3)}", "dim")


def _signal_row(signal: messages.Signal) -> list[str]:
    known = not signal.missing
    source = enum_word(messages.PerformanceSource, signal.source).lower()
    return [
        signal.name,
        number(signal.value, 2) if known else "missing",
        number(signal.weight, 2),
        number(signal.contribution, 2) if known else "-",
        f"{signal.sample_size:,}",
        ("yes" if signal.significant else "no") if known else "-",
        signal.explanation + (f" (from {source}, not from labels)" if source not in ("-", "labels") else ""),
    ]


def _metrics(page: Page, metrics: Sequence[messages.MetricReading]) -> None:
    if not metrics:
        return
    page.heading("metrics against the version's own baseline")
    page.table(
        [
            Column(title="METRIC"),
            Column(title="ROLE", spare=2),
            Column(title="SLICE", spare=3),
            Column(title="FROM", spare=4),
            Column(title="BASELINE", right=True),
            Column(title="NOW", right=True),
            Column(title="WORSE BY", right=True),
            Column(title="90 % INTERVAL", right=True),
            Column(title="P VALUE", right=True, spare=1),
            Column(title="TOLERATED", right=True, spare=5),
            Column(title="ROWS", right=True, spare=6),
        ],
        [
            [
                one.name,
                enum_word(messages.MetricRole, one.role).lower(),
                one.slice or "all",
                source_word(one),
                number(one.baseline, 4) if one.HasField("baseline") else "-",
                number(one.current, 4),
                number(one.drop, 2) if one.HasField("baseline") else "-",
                f"{number(one.drop_low, 2)} to {number(one.drop_high, 2)}" if one.HasField("baseline") else "-",
                number(one.p_value, 2) if one.HasField("baseline") else "-",
                number(one.tolerance, 2),
                f"{one.sample_size:,}",
            ]
            for one in metrics
        ],
    )


def _features(page: Page, title: str, features: Sequence[messages.FeatureDrift]) -> None:
    if not features:
        return
    page.heading(title)
    seasonal = any(one.psi_usual for one in features)
    weighted = any(one.importance not in (0, 1) for one in features)
    columns = [
        Column(title="FEATURE"),
        Column(title="PSI", right=True),
        Column(title="DEBIASED", right=True),
        Column(title="P VALUE", right=True, spare=1),
        *([Column(title="USUAL TO", right=True, spare=2)] if seasonal else []),
        *([Column(title="IMPORTANCE", right=True, spare=3)] if weighted else []),
        Column(title="DRIFTED"),
    ]
    page.table(
        columns,
        [
            [
                one.name,
                number(one.psi, 3),
                number(one.psi_debiased, 3),
                number(one.p_value, 2),
                *([number(one.psi_usual, 2) if one.psi_usual else "-"] if seasonal else []),
                *([number(one.importance, 2)] if weighted else []),
                ("yes" if one.drifted else "no") + (", as usual in this season" if one.seasonally_expected else ""),
            ]
            for one in features
        ],
    )


def _slices(page: Page, slices: Sequence[messages.SliceDrift]) -> None:
    if not slices:
        return
    page.heading("slices")
    page.table(
        [
            Column(title="SLICE"),
            Column(title="DRIFT", right=True),
            Column(title="FEATURES DRIFTED", right=True),
            Column(title="ROWS", right=True, spare=2),
            Column(title="MOST", prose=True, spare=1),
        ],
        [
            [
                one.slice,
                number(one.value, 2),
                share(one.drifted_share),
                f"{one.sample_size:,}",
                ", ".join(f"{feature.name} (PSI {number(feature.psi, 2)})" for feature in one.top_features) or "-",
            ]
            for one in slices
        ],
    )


def _upstreams(page: Page, upstreams: Sequence[messages.UpstreamCompatibility]) -> None:
    if not upstreams:
        return
    page.heading("upstream models retrained since")
    page.table(
        [
            Column(title="UPSTREAM"),
            Column(title="TRAINED WITH", right=True),
            Column(title="SERVES", right=True),
            Column(title="COMPATIBLE"),
            Column(title="NEIGHBOURS KEPT", right=True, spare=1),
            Column(title="NOISE FLOOR", right=True, spare=2),
            Column(title="WHAT IT SAYS", prose=True),
        ],
        [
            [
                one.model_id,
                version_word(one.trained_with),
                version_word(one.serves),
                "yes" if one.compatible else "no",
                number(one.knn_jaccard, 3) if one.anchors else "-",
                number(one.knn_jaccard_floor, 3) if one.anchors else "-",
                one.explanation,
            ]
            for one in upstreams
        ],
    )


def _forecast(session: Session, seen: messages.Evaluation) -> list[str]:
    crosses = instant_of(seen, "crosses_at")
    found = [seen.forecast] if seen.forecast else []
    if crosses is not None:
        found.append(f"the score reaches {number(seen.threshold, 3)} {when(crosses, session.now)}, on {clock(crosses)}")
    return found


def _rules(session: Session, outcome: messages.RuleOutcome) -> list[str]:
    found = []
    for match in outcome.matches:
        why = f": {match.reason}" if match.reason else ""
        since = when(instant_of(match, "since"), session.now)
        found.append(f"{action_word(match.action)}, by {match.name} ({match.scope}), since {since}{why}")
    if outcome.explanation:
        found.append(outcome.explanation)
    found.extend(f"cannot be asked: {fault}" for fault in outcome.faults)
    return found


def _sentences(page: Page, title: str, sentences: Sequence[str]) -> None:
    if sentences:
        page.heading(title)
        for sentence in sentences:
            page.prose(f"- {sentence}")
