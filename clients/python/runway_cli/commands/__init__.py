"""One module per noun; each is imported only when one of its commands runs."""
