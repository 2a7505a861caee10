"""Jet files to arrays: where files lie, what is in them, and whether their values can be jets."""
