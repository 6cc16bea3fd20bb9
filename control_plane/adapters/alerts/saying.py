"""One POST with a secret: never one that cannot be sent, and nothing of the secret in what is told of it.

What comes back is shown to everybody who may look: receivers that echo what they were sent, and redirects, which name
the whole address, would give the secret away.
"""

from collections.abc import Mapping

from control_plane.app.delivery import Post, Undelivered, hidden
from control_plane.core.alerts.types import Destination


async def said(
    post: Post, destination: Destination, secret: str, body: bytes, headers: Mapping[str, str], *, url: str = ""
) -> str:
    """Send it to the destination's address, or `url` in place of it; what came back, in words. Raises Undelivered."""
    try:
        answer = await post(url or destination.url, body, headers, allow_private=destination.allow_private)
    except Undelivered as error:
        raise error.hiding(secret) from None
    return hidden(answer, secret)


def plain(destination: Destination, secret: str) -> str:
    """A secret that goes into an address or a header as it is. Raises Undelivered: it holds what neither may."""
    if secret.isascii() and secret.isprintable() and " " not in secret:
        return secret
    raise Undelivered(
        f"the environment variable {destination.secret_variable} of the control plane holds a space, a line break or "
        "another character that no address and no header may have"
    )
