"""Jet files to batches: schemas, labels, features, packed store, compositions, order, DataModules."""

from __future__ import annotations
