"""Run directories: names, readers and writers of their files, and how damage is found. Needs no torch."""
