"""swiftlike-recon: how a cluster is, how far the change of a ring is, and a pause of healing."""

from tools.recon.cli import main

__all__ = ["main"]
