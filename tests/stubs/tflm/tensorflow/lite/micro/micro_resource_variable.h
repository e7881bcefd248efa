// Stands in for TFLM's resource variables: how many there may be.
#ifndef TFLITE_MICRO_TENSORFLOW_LITE_MICRO_MICRO_RESOURCE_H_
#define TFLITE_MICRO_TENSORFLOW_LITE_MICRO_MICRO_RESOURCE_H_

#include "tensorflow/lite/micro/micro_allocator.h"

namespace tflite {

class MicroResourceVariables {
  public:
    static MicroResourceVariables *Create(MicroAllocator *allocator, int max_num_variables) {
        static MicroResourceVariables variables;
        variables.count = allocator == nullptr ? 0 : max_num_variables;
        return &variables;
    }

    int count = 0;

  private:
    MicroResourceVariables() = default;
};

}  // namespace tflite

#endif
