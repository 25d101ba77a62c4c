"""Training of the embedded model in three stages; `skinclip.train` runs them in turn."""
