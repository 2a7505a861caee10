"""What a sweep is doing, read from its run directories while other processes write them.

Reads only: no lock is taken, no file is touched. Imports neither torch nor hydra, so that it answers at once.
"""

from __future__ import annotations
