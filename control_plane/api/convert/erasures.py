"""Receipts of erasures as messages, and ids as they are asked for."""

from runway.v1 import facts_pb2

from control_plane.api.convert.common import timestamp
from control_plane.app.fact_reports import ErasedLayer
from control_plane.core.erasure import ErasureReceipt, LayerReceipt
from control_plane.core.errors import Invalid, Reason, Violation


def check_whom(request: facts_pb2.EraseFactsRequest) -> None:
    """An erasure of nobody is a slip."""
    if not request.prediction_ids and not request.entity_ids:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(field="prediction_ids", rule="required", message="say prediction_ids, or entity_ids, or both"),
        )


def layer_receipt(layer: ErasedLayer) -> LayerReceipt:
    """A layer as the log keeps it."""
    return LayerReceipt(
        layer=layer.layer,
        found=layer.found,
        left=layer.left,
        files_rewritten=layer.files_rewritten,
        note=layer.note,
    )


def erasure_message(receipt: ErasureReceipt) -> facts_pb2.ErasureReceipt:
    """A receipt."""
    return facts_pb2.ErasureReceipt(
        erasure_id=receipt.erasure_id,
        erased_at=timestamp(receipt.erased_at),
        actor=receipt.actor,
        reason=receipt.reason,
        prediction_ids=receipt.prediction_ids,
        ids_sha256=receipt.ids_sha256,
        layers=[
            facts_pb2.ErasedLayer(
                layer=one.layer,
                found=one.found,
                left=one.left,
                files_rewritten=one.files_rewritten,
                note=one.note,
            )
            for one in receipt.layers
        ],
        receipt_sha256=receipt.receipt_sha256,
        revision=receipt.revision,
    )
