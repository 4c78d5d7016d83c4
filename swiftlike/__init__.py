"""The shared vocabulary: names, entries and how they merge, limits, errors, the internal RPC.

Everything here may be imported by every other package; this package imports none of them.
"""
