"""Training of the compact derm-CLIP within minutes of GPU time: pack the photos, train, bring the weights back."""
