"""What works without a server: drift between two files, and backtest reports as pages."""
