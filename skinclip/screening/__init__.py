"""Screening: a manifest of many photos to a Parquet row each, in one process or on a Ray cluster."""
