"""Compositions measured: how diverse one is, and how well aligned with the downstream jets."""
