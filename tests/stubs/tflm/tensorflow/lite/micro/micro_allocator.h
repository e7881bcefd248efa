// Stands in for TFLM's allocator: it is given the arena, and what is made of it lies there.
#ifndef TENSORFLOW_LITE_MICRO_MICRO_ALLOCATOR_H_
#define TENSORFLOW_LITE_MICRO_MICRO_ALLOCATOR_H_

#include <cstddef>
#include <cstdint>

namespace tflite {

class MicroAllocator {
  public:
    static MicroAllocator *Create(uint8_t *arena, size_t arena_bytes) {
        static MicroAllocator allocator;
        allocator.arena = arena;
        allocator.arena_bytes = arena_bytes;
        return &allocator;
    }

    uint8_t *arena = nullptr;
    size_t arena_bytes = 0;

  private:
    MicroAllocator() = default;
};

}  // namespace tflite

#endif
