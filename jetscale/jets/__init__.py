"""Jet files to batches: datasets, features, packed stores, compositions, order, DataModules."""

from __future__ import annotations
