"""The store of a study's answers: event log, readers, codes and schema. Only this package uses SQL."""
