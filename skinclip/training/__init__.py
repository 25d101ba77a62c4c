"""Training of the embedded model in three stages; `skinclip.training.run` runs them in turn."""
