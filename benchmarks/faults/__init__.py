"""Faults in all files that the project writes and all settings that it takes, and how many go unnoticed.

``python -m benchmarks.faults`` flips random bits in files and gives bad values to settings; the aim is that
none is accepted silently, and that every error names the file or the key. To add a kind of files, write
a `benchmarks.faults.flips.FilesKind` and put it into a module's ``KINDS``; a new module goes into
`benchmarks.faults.kinds`. Settings are taken from the commands' dataclasses.
"""
