"""The vocabulary, the Assessment record, configuration and paths: what every other part builds on."""
