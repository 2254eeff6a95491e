"""What a command was asked for that can't be asked: known before anything is sent."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(Exception):
    """Arguments that do not go together, or that no command takes: exit status 2, as for those that argparse refuses."""
