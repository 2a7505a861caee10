"""Run directories: what is in their files, and how damage to any of them is found. Needs no torch."""
