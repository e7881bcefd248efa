"""What a `.tflite` file holds, read from its bytes without an interpreter: bytes go in, facts come out."""
