"""What can go wrong with a ring, as a tree:

RingError                 any of the below; the message names the cause and the fix
├── RingFileError         the file is truncated, corrupted, foreign, or of a newer format
├── RingAncestryError     a ring that does not descend from the one in use
└── BuilderError          a change that the builder refuses; nothing was written
"""


class RingError(Exception):
    """A ring or builder that cannot be used, or a change to one that cannot be made."""


class RingFileError(RingError):
    """A ring or builder file that must not be believed."""


class RingAncestryError(RingError):
    """A ring that does not descend from the one in use: another cluster's, or another builder's."""


class BuilderError(RingError):
    """A change that the builder refuses, leaving everything as it was."""
