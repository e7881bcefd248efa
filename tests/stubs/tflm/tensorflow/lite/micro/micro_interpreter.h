// Stands in for TFLM's interpreter: checks how it is called, and replays outputs that tflite-micro gave (replay.h).
// As strict as TFLM: no variables without MicroResourceVariables, inputs are gone after Invoke and AllocateTensors, and
// outputs of a state that was not set back are wrong.
#ifndef TENSORFLOW_LITE_MICRO_MICRO_INTERPRETER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_INTERPRETER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "replay.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/micro_resource_variable.h"
#include "tensorflow/lite/schema/schema_generated.h"

#define TFLITE_SCHEMA_VERSION (3)

typedef union {
    void *data;
    char *raw;
} TfLitePtrUnion;

typedef struct {
    TfLitePtrUnion data;
    size_t bytes;
    TfLiteType type;
} TfLiteTensor;

namespace tflite {

class MicroInterpreter {
  public:
    MicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena, size_t arena_bytes,
                     MicroResourceVariables *variables = nullptr)
        : model_(model), resolver_(resolver), arena_(arena), arena_bytes_(arena_bytes), variables_(variables) {}

    MicroInterpreter(const Model *model, const MicroOpResolver &resolver, MicroAllocator *allocator,
                     MicroResourceVariables *variables = nullptr)
        : MicroInterpreter(model, resolver, allocator->arena, allocator->arena_bytes, variables) {}

    MicroInterpreter(const MicroInterpreter &) = delete;
    MicroInterpreter &operator=(const MicroInterpreter &) = delete;

    TfLiteStatus AllocateTensors() {
        if ((variables_ == nullptr ? 0 : variables_->count) < replay::kVariables) return kTfLiteError;
        if (model_->misaligned() || reinterpret_cast<uintptr_t>(arena_) % 16 != 0) return kTfLiteError;
        if (resolver_.added != replay::kOperators || arena_bytes_ < replay::kArenaBytes) return kTfLiteError;
        uint8_t *next = arena_;
        for (size_t i = 0; i < replay::kInputs + replay::kOutputs; i++) {
            tensors_[i].data.data = next;
            tensors_[i].bytes = replay::kBytes[i];
            tensors_[i].type = replay::kTypes[i];
            memset(next, 0x5A, replay::kBytes[i]);
            next += (replay::kBytes[i] + 15) / 16 * 16;
        }
        is_ready_ = true;
        return kTfLiteOk;
    }

    TfLiteStatus Invoke() {
        if (!is_ready_) return kTfLiteError;
        for (size_t sample = 0; sample < replay::kSamples; sample++) {
            const uint8_t *values = replay::kValues[sample];
            bool same = true;
            for (size_t i = 0; i < replay::kInputs; i++) {
                same = same && memcmp(tensors_[i].data.data, values, replay::kBytes[i]) == 0;
                values += replay::kBytes[i];
            }
            for (size_t i = 0; same && i < replay::kOutputs; i++) {
                memcpy(tensors_[replay::kInputs + i].data.data, values, replay::kBytes[replay::kInputs + i]);
                if (is_changed_) tensors_[replay::kInputs + i].data.raw[0] ^= 0x40;
                values += replay::kBytes[replay::kInputs + i];
            }
            if (!same) continue;
            for (size_t i = 0; i < replay::kInputs; i++) memset(tensors_[i].data.data, 0xA5, replay::kBytes[i]);
            is_changed_ = replay::kRemembers;
            return kTfLiteOk;
        }
        return kTfLiteError;
    }

    TfLiteStatus Reset() {
        if (!is_ready_) return kTfLiteError;
        // It leaves zeros in variables, not what the model starts them with.
        is_changed_ = replay::kVariables > 0;
        return kTfLiteOk;
    }

    TfLiteTensor *input(size_t index) { return index < replay::kInputs ? &tensors_[index] : nullptr; }

    TfLiteTensor *output(size_t index) {
        return index < replay::kOutputs ? &tensors_[replay::kInputs + index] : nullptr;
    }

    size_t inputs_size() const { return replay::kInputs; }
    size_t outputs_size() const { return replay::kOutputs; }
    size_t arena_used_bytes() const { return replay::kArenaBytes; }

  private:
    const Model *model_;
    const MicroOpResolver &resolver_;
    uint8_t *arena_;
    size_t arena_bytes_;
    MicroResourceVariables *variables_;
    bool is_ready_ = false, is_changed_ = false;
    TfLiteTensor tensors_[replay::kInputs + replay::kOutputs] = {};
};

}  // namespace tflite

#endif
