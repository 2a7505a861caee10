"""The step of a set transformer on a GPU: forward, backward and update on static memory, written in Triton.

No autograd: backward passes are written out, as in `jetscale.model.kernels.cpu`, so that the whole step is a
few dozen launches that a CUDA graph replays. `usable` says where it applies; elsewhere PyTorch's operations
compute the same. Without a card the kernels run in Triton's interpreter (``TRITON_INTERPRET=1``), which is how
they are tested.
"""
