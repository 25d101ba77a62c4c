"""The model: frozen CLIP perception, interpretable evidence, a Qwen2.5-VL that reasons over both."""
