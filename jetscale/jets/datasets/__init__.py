"""Datasets: their classes, labels, files, splits and columns."""
