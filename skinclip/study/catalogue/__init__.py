"""The texts that a study's readers see, in every language."""
