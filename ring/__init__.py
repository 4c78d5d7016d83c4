"""Placement: which devices hold a name, and how that changes when the cluster does.

The read side (`ring.ring`, `ring.file`) is what a proxy or a device loads; it never imports numpy. The
change side (`ring.builder`) is what an operator runs. Neither opens a socket nor reads a clock of its own.
"""
