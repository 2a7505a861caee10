"""``python -m jetscale.prepare``: jet files to packed stores."""
