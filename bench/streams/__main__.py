"""`python -m bench.streams`: Runway beside river's detectors on seeded streams, as a table, as JSON, as a picture.

python -m bench.streams --streams SEA Agrawal --json streams.json --png docs/backtest_streams.png
python -m bench.streams --from-json streams.json --png docs/backtest_streams.png
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import msgspec

from bench.streams.compare import SETTINGS, STREAMS, compared, world_of
from bench.streams.detectors import defaults, tuned
from control_plane.backtest.report import Result

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All contenders on one stream with labels of one setting."""

    stream: str
    setting: str
    results: tuple[Result, ...]


def measured(streams: list[str], seed: int) -> list[Table]:
    """Everything, printed as it comes."""
    found = []
    for stream in streams:
        for setting in SETTINGS:
            results = compared(world_of(stream, setting, seed=seed), (*defaults(), *tuned()), usual=True)
            found.append(Table(stream=stream, setting=setting.name, results=tuple(results)))
            told(found[-1])
    return found


def told(table: Table) -> None:
    """Print one table."""
    print(f"\n{table.stream}, labels {table.setting}")
    print(f"{'':<38}{'F1':>6}{'recall':>8}{'prec.':>7}{'delay h':>9}{'retrains':>10}{'benign/mo':>11}{'stale h':>9}")
    for one in table.results:
        delay = "-" if one.detection_delay_hours is None else f"{one.detection_delay_hours:.0f}"
        print(
            f"{one.name:<38}{one.f1:>6.2f}{one.recall:>8.2f}{one.precision:>7.2f}{delay:>9}{one.retrains:>10}"
            f"{one.false_alarms_per_model_month:>11.2f}{one.stale_hours:>9.0f}",
            flush=True,
        )


def drawn(tables: list[Table], path: Path) -> None:
    """F1 of each contender, one panel per stream, one group per setting."""
    streams = list(dict.fromkeys(table.stream for table in tables))
    figure, panels = plt.subplots(len(streams), 1, figsize=(10, 2.9 * len(streams)), squeeze=False, sharey=True)
    for panel, stream in zip(panels[:, 0], streams, strict=True):
        own = [table for table in tables if table.stream == stream]
        names = [one.name for one in own[0].results if one.name != "psi only"]
        for at, name in enumerate(names):
            scores = [next((one.f1 for one in table.results if one.name == name), 0.0) for table in own]
            places = [group + (at - len(names) / 2) * 0.11 for group in range(len(own))]
            panel.bar(places, scores, 0.1, label=name, color="black" if name == "Runway" else f"C{at - 1}")
        panel.set_xticks(range(len(own)), [f"labels {table.setting}" for table in own])
        panel.set_ylim(0, 1.05)
        panel.set_ylabel("F1 of alarms")
        panel.set_title(stream, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(ncols=4, fontsize=7, loc="lower center", bbox_to_anchor=(0.55, 1.02), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Exit code: 0, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS), metavar="STREAM")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the streams; others tell the same story in other numbers"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="read them instead of measuring")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw F1 by stream and setting")
    arguments = parser.parse_args()
    if arguments.from_json is not None:
        tables = msgspec.json.decode(arguments.from_json.read_bytes(), type=list[Table])
        for table in tables:
            told(table)
    else:
        tables = measured(arguments.streams, arguments.seed)
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.encode(tables))
    if arguments.png is not None:
        drawn(tables, arguments.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
