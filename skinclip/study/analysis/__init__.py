"""The analysis of a study: tables, statistics, figures and the report."""
