"""What is put together of parts that do not know each other: the module names, for whoever starts a process by one.

Owns names only, so that a supervisor does not load what its children are made of.
"""

from typing import Final

DEVICE_PROCESS: Final = "tools.device_process"
"""One device, with the quorum client that its updater pays debts by."""
