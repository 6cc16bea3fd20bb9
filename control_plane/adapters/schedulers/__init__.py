"""Adapters: systems that run retrains."""
