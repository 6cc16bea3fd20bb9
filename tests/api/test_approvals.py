"""The page behind approval links is served beside lineage, where there is a key, and nowhere else."""

import asyncio
import urllib.error
import urllib.request
from datetime import timedelta

from control_plane.app.approval_links import ApprovalLinks, Claim
from control_plane.core.ids import RolloutId
from tests.api.worlds import START, Host

KEY = "a key of thirty-two characters.."


def asked(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and body."""
    request = urllib.request.Request(url, data=body, method="POST" if body is not None else "GET")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_the_page_is_served_where_there_is_a_key(host: Host) -> None:
    async with host.life(approval_key=KEY, web_url="http://runway.example") as api:
        base = f"http://127.0.0.1:{api.plane.lineage.port}"
        claim = Claim(rollout_id=RolloutId("ro_000001"), approver="grace", expires_at=START + timedelta(days=3650))
        good = ApprovalLinks(KEY, base).link(claim)
        status, text = await asyncio.to_thread(asked, good)
        assert (status, "There is no such rollout" in text) == (404, True)
        status, text = await asyncio.to_thread(asked, good.replace("grace", "mallory"))
        assert (status, "was not made by this control plane" in text) == (403, True)
        status, _ = await asyncio.to_thread(asked, f"{base}/approve", b"rollout=ro_000001")
        assert status == 403
        assert (await asyncio.to_thread(asked, f"{base}/health"))[0] == 200


async def test_without_a_key_there_is_no_page(host: Host) -> None:
    async with host.life() as api:
        base = f"http://127.0.0.1:{api.plane.lineage.port}"
        assert (await asyncio.to_thread(asked, f"{base}/approve"))[0] == 404
