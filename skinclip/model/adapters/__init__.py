"""Adapters of the big presets as files: their checks, model card, merging, and exchange with the hub."""
