"""Between the contract's messages and core's types: one module per service, pure functions, no decisions.

`*_from` reads a message and may raise `Invalid`; the rest write one.
"""
