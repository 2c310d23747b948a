"""Models as files for other programs: archives, weights, ONNX and a web page that samples."""
