// Runs an engine directory of ampnet-opt (backend tensorrt) from C++: TensorRT 8.5 and later, the CUDA runtime, nlohmann-json.
//
//     run_engine engines/tensorrt-int8 face.rgb 80 90 144 90 112 120 88 155 136 155
//
// face.rgb holds 224 x 224 pixels, three bytes each, rows from the top: the engine has to take uint8, as it does by default.
// The ten numbers are the landmarks in pixels, (x, y) of image-left eye, image-right eye, nose tip, image-left and image-right
// mouth corner. It prints the probability of each class.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::size_t kSide = 224;
constexpr std::size_t kPoints = 10;

class Logger : public nvinfer1::ILogger {
  void log(Severity severity, char const* message) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", message);
  }
};

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

std::vector<char> read_file(std::string const& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// Memory on the GPU, freed with the object.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) { check(cudaMalloc(&address_, bytes)); }
  ~DeviceMemory() { cudaFree(address_); }
  DeviceMemory(DeviceMemory const&) = delete;
  DeviceMemory& operator=(DeviceMemory const&) = delete;
  void* get() const { return address_; }

 private:
  void* address_ = nullptr;
};

// What engine.json says of the plan beside it.
struct Sidecar {
  std::vector<std::string> classes;
  bool version_compatible;
};

Sidecar read_sidecar(std::string const& directory) {
  auto const text = read_file(directory + "/engine.json");
  auto const content = nlohmann::json::parse(text.begin(), text.end());
  if (content.at("format") != "ampnet-opt-engine/1") throw std::runtime_error("engine.json is of another version");
  if (content.at("backend") != "tensorrt") throw std::runtime_error("the engine is not for tensorrt");
  if (content.at("image_input") != "uint8") throw std::runtime_error("the engine takes float32 images");
  return {content.at("classes").get<std::vector<std::string>>(), content.at("target").value("version_compatible", false)};
}

std::vector<float> infer(std::string const& directory, Sidecar const& about, std::vector<char> const& image,
                         std::array<float, kPoints> const& landmarks) {
  Logger logger;
  std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
  runtime->setEngineHostCodeAllowed(about.version_compatible);  // such a plan brings its runtime with it
#endif
  auto const plan = read_file(directory + "/engine.plan");
  std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  if (!engine) throw std::runtime_error("TensorRT refuses the plan: it runs with the version and GPU that built it");
  std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());

  std::vector<float> logits(about.classes.size());
  DeviceMemory image_memory(image.size()), landmarks_memory(sizeof(landmarks)), logits_memory(logits.size() * sizeof(float));
  bool set = context->setInputShape("image", nvinfer1::Dims4(1, kSide, kSide, 3));
  set &= context->setInputShape("landmarks", nvinfer1::Dims3(1, kPoints / 2, 2));
  set &= context->setTensorAddress("image", image_memory.get());
  set &= context->setTensorAddress("landmarks", landmarks_memory.get());
  set &= context->setTensorAddress("logits", logits_memory.get());
  if (!set) throw std::runtime_error("the plan takes other inputs, or no batch of one");

  cudaStream_t stream;
  check(cudaStreamCreate(&stream));
  check(cudaMemcpyAsync(image_memory.get(), image.data(), image.size(), cudaMemcpyHostToDevice, stream));
  check(cudaMemcpyAsync(landmarks_memory.get(), landmarks.data(), sizeof(landmarks), cudaMemcpyHostToDevice, stream));
  if (!context->enqueueV3(stream)) throw std::runtime_error("TensorRT failed to compute");
  check(cudaMemcpyAsync(logits.data(), logits_memory.get(), logits.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
  check(cudaStreamSynchronize(stream));
  check(cudaStreamDestroy(stream));
  return logits;
}

int main(int count, char** words) try {
  if (count != 3 + static_cast<int>(kPoints)) throw std::runtime_error("usage: run_engine ENGINE face.rgb and ten numbers");
  auto const about = read_sidecar(words[1]);
  auto const image = read_file(words[2]);
  if (image.size() != kSide * kSide * 3) throw std::runtime_error("the picture is not 224 x 224 pixels of three bytes");
  std::array<float, kPoints> landmarks;
  std::transform(words + 3, words + count, landmarks.begin(), [](char const* word) { return std::strtof(word, nullptr); });

  auto const logits = infer(words[1], about, image, landmarks);
  float const largest = *std::max_element(logits.begin(), logits.end());
  float sum = 0;
  for (float logit : logits) sum += std::exp(logit - largest);
  for (std::size_t i = 0; i < logits.size(); ++i)
    std::printf("%s  %.1f%%\n", about.classes[i].c_str(), 100 * std::exp(logits[i] - largest) / sum);
  return 0;
} catch (std::exception const& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
