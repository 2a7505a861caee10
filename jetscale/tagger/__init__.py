"""A trained tagger put to use: load it, score jets, measure it, export it (docs/tagger.md)."""
