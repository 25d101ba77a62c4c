"""The reader study: its protocol, allocation and blinding, store, statistics and report."""
