"""The ring builder's command line, in the grammar that Swift's operators have in their fingers."""

from tools.ring_builder.cli import main

__all__ = ["main"]
