"""``python -m jetscale.download``: public files of JetClass and JetClass-II, checked, in their places."""
