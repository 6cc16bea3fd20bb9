"""A mistake that people make: outcomes joined to the wrong flights. The demo plays it once, to show who notices.

While the file is there the next training of a model with outcomes takes it away and makes the mistake.
"""

from pathlib import Path

from assets.flights.home import home

FILE = "mix-up-next-training"


def mix_up_file() -> Path:
    """Where the mistake lies in wait."""
    return home() / FILE


def mixed_up() -> bool:
    """Is this training the one? Of several at once only one is."""
    try:
        mix_up_file().unlink()
    except FileNotFoundError:
        return False
    return True
