// What headrace_model.h promises, on torch's loader of AOTInductor packages. Compile it once: see the Makefile.
#include "headrace_model.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// Of the OpenMP library that torch brings, by name: a compiler's own flag may bring another one.
extern "C" {
int omp_get_max_threads(void) __attribute__((weak));
void omp_set_num_threads(int threads) __attribute__((weak));
}

namespace {

struct Array {
  std::string name;
  std::vector<int64_t> extents;  // of one sample

  int64_t size() const {
    int64_t product = 1;
    for (int64_t extent : extents) product *= extent;
    return product;
  }
};

thread_local std::string last_error;
std::atomic<int> wanted_threads{0};
thread_local int applied_threads = 0;

// The caller may have parallel regions of its own: what it has set for them is put back. Through torch alone that would
// end and start torch's pool of threads with every call.
class Threads {
 public:
  Threads() {
    if (omp_get_max_threads != nullptr) before_ = omp_get_max_threads();
    const int wanted = wanted_threads.load();
    if (wanted != applied_threads) {
      at::set_num_threads(wanted > 0 ? wanted : std::max(before_, 1));
      applied_threads = wanted;
    }
    if (wanted > 0) set(wanted);
  }
  ~Threads() { set(before_); }

 private:
  static void set(int threads) {
    if (omp_set_num_threads != nullptr && threads > 0) omp_set_num_threads(threads);
  }
  int before_ = 0;
};

// Runs something, and keeps what it throws as the text of the error.
template <typename Result, typename Function>
Result guarded(Result failed, Function function) {
  try {
    return function();
  } catch (const c10::Error& error) {
    // Without torch's stack, and of the rest the first line.
    const std::string text = error.what_without_backtrace();
    last_error = text.substr(0, text.find('\n'));
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an error of an unknown kind";
  }
  return failed;
}

}  // namespace

struct headrace_model {
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader;
  bool is_double = false;
  std::vector<Array> inputs, outputs;
};

namespace {

const Array& at_place(const headrace_model* model, bool is_input, int place) {
  if (model == nullptr) throw std::invalid_argument("the model is NULL: was it opened?");
  const auto& arrays = is_input ? model->inputs : model->outputs;
  if (place < 0 || place >= static_cast<int>(arrays.size()))
    throw std::out_of_range(std::string(is_input ? "input " : "output ") + std::to_string(place) +
                            " was asked for, there are " + std::to_string(arrays.size()));
  return arrays[place];
}

int64_t extent(const headrace_model* model, bool is_input, int place, int axis) {
  const auto& extents = at_place(model, is_input, place).extents;
  if (axis < 0 || axis >= static_cast<int>(extents.size()))
    throw std::out_of_range("axis " + std::to_string(axis) + " was asked for, there are " +
                            std::to_string(extents.size()));
  return extents[axis];
}

// "float32;inputs 2 64 64;parameters 1;outputs 1 1 64 64"
void read_shapes(headrace_model& model, const std::string& text) {
  std::stringstream parts(text);
  std::string part;
  std::getline(parts, part, ';');
  model.is_double = part == "float64";
  while (std::getline(parts, part, ';')) {
    std::stringstream words(part);
    Array array;
    words >> array.name;
    for (int64_t extent; words >> extent;) array.extents.push_back(extent);
    (array.name == "outputs" ? model.outputs : model.inputs).push_back(array);
  }
}

template <typename Number>
int run(headrace_model* model, int64_t batch, const Number* const* inputs, Number* const* outputs) {
  return guarded(1, [&] {
    if (model == nullptr) throw std::invalid_argument("the model is NULL: was it opened?");
    if (inputs == nullptr || outputs == nullptr) throw std::invalid_argument("inputs or outputs are NULL");
    if (batch < 1) throw std::invalid_argument("the batch is " + std::to_string(batch) + ", expected 1 or more");
    const auto given = sizeof(Number) == 8 ? at::kDouble : at::kFloat;
    const auto inside = model->is_double ? at::kDouble : at::kFloat;
    c10::InferenceMode mode;
    Threads threads;
    std::vector<at::Tensor> tensors;
    for (size_t i = 0; i < model->inputs.size(); ++i) {
      if (inputs[i] == nullptr) throw std::invalid_argument(model->inputs[i].name + " is NULL");
      std::vector<int64_t> shape = model->inputs[i].extents;
      shape.insert(shape.begin(), batch);
      tensors.push_back(at::from_blob(const_cast<Number*>(inputs[i]), shape, given).to(inside));
    }
    const auto said = model->loader->run(tensors);
    for (size_t i = 0; i < model->outputs.size(); ++i) {
      if (outputs[i] == nullptr) throw std::invalid_argument(model->outputs[i].name + " is NULL");
      const int64_t count = batch * model->outputs[i].size();
      const at::Tensor dense = said.at(i).to(given).contiguous();
      if (dense.numel() != count)
        throw std::runtime_error("the model gave " + std::to_string(dense.numel()) + " numbers, expected " +
                                 std::to_string(count));
      std::memcpy(outputs[i], dense.data_ptr(), count * sizeof(Number));
    }
    return 0;
  });
}

}  // namespace

extern "C" {

headrace_model* headrace_model_open(const char* path) {
  return guarded(static_cast<headrace_model*>(nullptr), [&] {
    if (path == nullptr) throw std::invalid_argument("the path is NULL");
    auto model = std::make_unique<headrace_model>();
    try {
      model->loader = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path);
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      throw std::runtime_error(std::string(path) + " cannot be loaded: " + text.substr(0, text.find('\n')));
    }
    const auto metadata = model->loader->get_metadata();
    const auto shapes = metadata.find("headrace_shapes");
    if (shapes == metadata.end())
      throw std::runtime_error(std::string(path) + " was not written by headrace export --format aoti");
    read_shapes(*model, shapes->second);
    return model.release();
  });
}

void headrace_model_close(headrace_model* model) { delete model; }

const char* headrace_model_error(void) { return last_error.c_str(); }

int headrace_model_num_inputs(const headrace_model* model) {
  return model == nullptr ? -1 : static_cast<int>(model->inputs.size());
}
int headrace_model_num_outputs(const headrace_model* model) {
  return model == nullptr ? -1 : static_cast<int>(model->outputs.size());
}
const char* headrace_model_input_name(const headrace_model* model, int input) {
  return guarded(static_cast<const char*>(nullptr), [&] { return at_place(model, true, input).name.c_str(); });
}
const char* headrace_model_output_name(const headrace_model* model, int output) {
  return guarded(static_cast<const char*>(nullptr), [&] { return at_place(model, false, output).name.c_str(); });
}
int headrace_model_input_rank(const headrace_model* model, int input) {
  return guarded(-1, [&] { return static_cast<int>(at_place(model, true, input).extents.size()); });
}
int headrace_model_output_rank(const headrace_model* model, int output) {
  return guarded(-1, [&] { return static_cast<int>(at_place(model, false, output).extents.size()); });
}
int64_t headrace_model_input_extent(const headrace_model* model, int input, int axis) {
  return guarded(int64_t{-1}, [&] { return extent(model, true, input, axis); });
}
int64_t headrace_model_output_extent(const headrace_model* model, int output, int axis) {
  return guarded(int64_t{-1}, [&] { return extent(model, false, output, axis); });
}
int64_t headrace_model_input_size(const headrace_model* model, int input) {
  return guarded(int64_t{-1}, [&] { return at_place(model, true, input).size(); });
}
int64_t headrace_model_output_size(const headrace_model* model, int output) {
  return guarded(int64_t{-1}, [&] { return at_place(model, false, output).size(); });
}
int headrace_model_is_double(const headrace_model* model) { return model == nullptr ? -1 : model->is_double; }

int headrace_model_set_threads(int threads) {
  return guarded(1, [&] {
    if (threads < 0) throw std::invalid_argument(std::to_string(threads) + " threads were asked for");
    wanted_threads.store(threads);
    return 0;
  });
}

int headrace_model_run_double(headrace_model* model, int64_t batch, const double* const* inputs,
                              double* const* outputs) {
  return run(model, batch, inputs, outputs);
}
int headrace_model_run_float(headrace_model* model, int64_t batch, const float* const* inputs,
                             float* const* outputs) {
  return run(model, batch, inputs, outputs);
}

}  // extern "C"
