"""The `runway` command: what a person, or a script, asks of the control plane."""
