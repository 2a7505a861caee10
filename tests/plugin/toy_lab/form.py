"""A form of the loss surface: that of Kaplan et al. (arXiv:2001.08361, eq. 1.5), which has no floor.

L(N, D) = ((A / N^alpha)^(1/beta) + (B / D^beta)^(1/beta))^beta

python -m jetscale.analysis --trust toy_lab.form approach3.form=kaplan source=table path=t.csv out=fit
"""

from __future__ import annotations

import numpy as np

from jetscale.analysis.fitting.surface import FORMS, Array, Bend, SurfaceForm


@FORMS.register("kaplan")
class Kaplan(SurfaceForm):
    """Model and data limit each other; with both without end the loss goes to 0."""

    # The formula is for the report. A parameter called log_X is the logarithm of X, and reported as X.
    formula = "((A / N^alpha)^(1/beta) + (B / D^beta)^(1/beta))^beta"
    parameters = ("log_A", "log_B", "alpha", "beta")

    def derivatives(self, theta_RQ: Array, x_RP: Array, y_RP: Array) -> tuple[Array, Array, Bend]:
        """Ln L (R, P), its first derivatives (R, Q, P), and the sum of its second ones over the points.

        R surfaces at P points, x = ln N and y = ln D. jetscale compares all three with numerical differences
        before the first fit, so a slip of the pen is an error message and no wrong exponent.
        """
        log_A, log_B, alpha, beta = theta_RQ.T[:, :, None]
        # ln L = beta ln(exp u + exp v) with u = (ln A - alpha x) / beta and v = (ln B - beta y) / beta
        u, v = (log_A - alpha * x_RP) / beta, (log_B - beta * y_RP) / beta
        both = np.logaddexp(u, v)
        t, s = np.exp(u - both), np.exp(v - both)  # shares of the two terms, t + s = 1
        J_RQP = np.stack([t, s, -x_RP * t, both - t * u - s * v - y_RP * s], axis=1)
        # u - v changes with the parameters by k / beta: the second derivatives of ln L are t s / beta k k'
        one = np.ones_like(t)
        k_RQP = np.stack([one, -one, -x_RP * one, y_RP - u + v], axis=1)

        def bend(weight_RP: Array) -> Array:
            # those of L, divided by L: the second derivatives of ln L plus J J'
            log_part = (k_RQP * (weight_RP * t * s / beta)[:, None]) @ k_RQP.transpose(0, 2, 1)
            return log_part + (J_RQP * weight_RP[:, None]) @ J_RQP.transpose(0, 2, 1)

        return beta * both, J_RQP, bend

    def exponents(self, theta_RQ: Array) -> tuple[Array, Array]:
        """N* ~ C^a and D* ~ C^b: at the optimum the two terms are in a fixed proportion."""
        alpha, beta = theta_RQ[:, 2], theta_RQ[:, 3]
        return beta / (alpha + beta), alpha / (alpha + beta)
