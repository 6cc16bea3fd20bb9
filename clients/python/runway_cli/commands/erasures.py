"""`runway erase` and `runway erasures`: predictions go from every layer, and a receipt shows that they have."""

import sys
import uuid
from pathlib import Path

import click
from runway_client import messages
from runway_client.connection import Why

from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option
from runway_cli.words import clock, count, instant_of

LISTED_DEFAULT = 20


@click.command()
@click.option(
    "--prediction-id", "ids", multiple=True, metavar="ID", help="A prediction's id, as UUID or 32 hex digits."
)
@click.option("--entity-id", "entities", multiple=True, metavar="TEXT", help="Whose predictions, as the sender said.")
@click.option("--file", "file", metavar="FILE", help="Prediction ids, one a line; `-` is standard input.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def erase_facts(
    session: Session, ids: tuple[str, ...], entities: tuple[str, ...], file: str | None, reason: str, yes: bool
) -> None:
    """Erase predictions and all that hangs on them, from every layer; for good.

    What is sent again under these ids later, by a replay or with a late outcome, is dropped.
    """
    wanted = sorted({_id(text) for text in (*ids, *_lines(file))})
    if not wanted and not entities:
        raise click.UsageError("say --prediction-id, --entity-id or --file")
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this cannot be undone: say --yes to do it without being asked")
        whose = f" and all predictions of {count(len(entities), 'entity', 'entities')}" if entities else ""
        click.confirm(f"Erase {count(len(wanted), 'prediction')}{whose} for good?", abort=True, err=True)
    receipt = session.runway.facts.erase_facts(wanted, entity_ids=entities, why=Why(reason=reason))
    if session.as_json:
        session.emit(receipt)
        return
    _show(session.page, receipt)


@click.command()
@click.option("--limit", default=LISTED_DEFAULT, show_default=True, type=click.IntRange(1, 10_000))
@json_option
@click.pass_obj
def list_erasures(session: Session, limit: int) -> None:
    """Receipts of what was erased, newest first."""
    receipts = session.runway.facts.list_erasures(limit=limit)
    if session.as_json:
        session.emit(messages.ListErasuresResponse(receipts=receipts))
        return
    if not receipts:
        session.page.prose("Nothing was ever erased.")
        return
    for at, receipt in enumerate(receipts):
        if at:
            session.page.line()
        _show(session.page, receipt)


def _show(page: Page, receipt: messages.ErasureReceipt) -> None:
    """One receipt: who, what, and by layer what was found and what is left."""
    why = f", because: {receipt.reason}" if receipt.reason else ""
    page.prose(
        f"{receipt.erasure_id}: {receipt.actor} erased {count(receipt.prediction_ids, 'prediction')} at "
        f"{clock(instant_of(receipt, 'erased_at'))}{why}. A second search found "
        f"{sum(one.left for one in receipt.layers)}."
    )
    page.line()
    page.table(
        [
            Column(title="LAYER"),
            Column(title="FOUND", right=True),
            Column(title="LEFT", right=True),
            Column(title="FILES REWRITTEN", right=True),
        ],
        [[one.layer, f"{one.found:,}", f"{one.left:,}", f"{one.files_rewritten:,}"] for one in receipt.layers],
    )
    page.line()
    for one in receipt.layers:
        if one.note:
            page.prose(f"{one.layer}: {one.note}.")
    page.line()
    page.line(f"ids      sha256 {receipt.ids_sha256}", "dim")
    page.line(f"receipt  sha256 {receipt.receipt_sha256} (revision {receipt.revision} of the log)", "dim")


def _lines(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _id(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise click.UsageError(f"{text!r} is no prediction id: write a UUID, or 32 hex digits") from None
