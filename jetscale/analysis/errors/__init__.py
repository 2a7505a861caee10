"""Uncertainties: replicates of the data, profiles of the fit, and the intervals they give."""
