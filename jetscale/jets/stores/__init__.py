"""Packed stores: built from jet files, verified, memory-mapped."""
