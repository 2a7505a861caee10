"""Kernels: compiled operations behind the interface of `jetscale.model.operations`, one folder a device."""
