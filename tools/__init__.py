"""What the Makefile runs: the contract's stubs and checks. Nothing here is imported by the product."""
