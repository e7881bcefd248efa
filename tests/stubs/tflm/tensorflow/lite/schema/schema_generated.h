// Stands in for the schema: a model is its bytes.
#ifndef TENSORFLOW_LITE_SCHEMA_SCHEMA_GENERATED_H_
#define TENSORFLOW_LITE_SCHEMA_SCHEMA_GENERATED_H_

#include <cstdint>
#include <cstring>

namespace tflite {

struct Model {
    uint8_t bytes[8];

    uint32_t version() const { return memcmp(bytes + 4, "TFL3", 4) == 0 ? 3 : 0; }
    bool misaligned() const { return reinterpret_cast<uintptr_t>(this) % 16 != 0; }
};

inline const Model *GetModel(const void *buffer) { return static_cast<const Model *>(buffer); }

}  // namespace tflite

#endif
