"""All subsets in one model: shared exponents, tests of what differs, what pretraining is worth in jets."""
