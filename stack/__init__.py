"""The development stack: everything `make up` starts, watches and ends."""
