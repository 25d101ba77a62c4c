"""Training of the embedded model in three stages; `skinclip.training.run` runs them in turn.

Stage 0 trains the image-text tower on pairs of photo and description, stage 1 the language model on rationales, stage 2
evidence, projector, LoRA and heads with the CFA loss (Consistency-aware Focal Alignment).
"""
