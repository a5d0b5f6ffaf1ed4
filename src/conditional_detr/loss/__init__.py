"""Set prediction loss: one-to-one matching and the criterion on matched pairs."""
