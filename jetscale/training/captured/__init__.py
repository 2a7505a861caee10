"""The training step as one CUDA graph, many of them in one Lightning step.

A narrow network's step is a few dozen kernels of microseconds each, so Python, launches and copies one by one
would take most of the time. A Lightning step is a chunk of optimiser steps (`plan`), whose jets a thread has
gathered and copied to the card ahead of time (`feed`). Each optimiser step is the replay of one graph
(`graphs`), which was captured for a number of tokens (`steps`). `module.CapturedClassifier` puts them
together, and `evaluation` takes the test loss the same way. `choice` says which runs train so; the others
train as `jetscale.training.lean_module` does, with the same mathematics.

Without a GPU there is no graph: the same work is done call by call, in Triton's interpreter. Tests run it so.
"""
