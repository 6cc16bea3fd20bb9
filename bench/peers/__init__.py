"""Programs that users would pick instead, run in an environment of their own: their pins do not go with ours."""
