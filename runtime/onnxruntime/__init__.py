"""The backends onnxruntime, onnxruntime-cuda and onnxruntime-tensorrt."""
