"""From loss curves to laws: the three approaches, their solver, and the cost of training."""
