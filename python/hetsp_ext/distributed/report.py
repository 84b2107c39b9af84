"""What the groups of backend `hetsp` are waiting for, in words: for a job that stands still."""

from .backend import missing, native

__all__ = ["report"]


def report() -> str:
    """Of every group of this process, as its rank sees it: the operations that are open, how far each is and since when; every
    link, and what is not confirmed on it; room lent and borrowed. No collective, and never waits long.

    From any thread: a job that may stand still starts one that prints this now and then. A rank tells what it waits for; who
    holds it up is told by the report of that one.
    """
    return "" if missing() else str(native().report())
