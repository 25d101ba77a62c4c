"""The reader study: protocol, allocation, blinded sessions, the store of answers, statistics and reports."""
