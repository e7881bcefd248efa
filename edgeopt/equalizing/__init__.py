"""Cross-layer equalization: a model goes in; the same function with even channel ranges comes out."""
