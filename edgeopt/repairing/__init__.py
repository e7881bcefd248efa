"""Repair of a quantized `.tflite`: it, its float file and samples go in; other ranges, scales and biases come out."""
