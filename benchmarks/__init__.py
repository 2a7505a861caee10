"""Every speed ratio of the project, each against a peer or reference in the same run."""

from __future__ import annotations
