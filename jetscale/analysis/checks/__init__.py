"""Whether a fit can be believed: held-out points, lack of fit, and other reasonable choices."""
