"""The texts that the model reads and writes: rationales, paraphrases, prompts and constrained decoding."""
