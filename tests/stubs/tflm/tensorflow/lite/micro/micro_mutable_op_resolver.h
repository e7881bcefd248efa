// Stands in for TFLM's resolver: counts what is added, and refuses more than it was made for.
#ifndef TENSORFLOW_LITE_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

class MicroOpResolver {
  public:
    unsigned added = 0;
};

template <unsigned tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
  public:
    TfLiteStatus AddAdd() { return add(); }
    TfLiteStatus AddAssignVariable() { return add(); }
    TfLiteStatus AddAveragePool2D() { return add(); }
    TfLiteStatus AddCallOnce() { return add(); }
    TfLiteStatus AddConcatenation() { return add(); }
    TfLiteStatus AddConv2D() { return add(); }
    TfLiteStatus AddDepthwiseConv2D() { return add(); }
    TfLiteStatus AddDequantize() { return add(); }
    TfLiteStatus AddEthosU() { return add(); }
    TfLiteStatus AddFullyConnected() { return add(); }
    TfLiteStatus AddMean() { return add(); }
    TfLiteStatus AddMul() { return add(); }
    TfLiteStatus AddQuantize() { return add(); }
    TfLiteStatus AddReadVariable() { return add(); }
    TfLiteStatus AddReshape() { return add(); }
    TfLiteStatus AddSoftmax() { return add(); }
    TfLiteStatus AddStridedSlice() { return add(); }
    TfLiteStatus AddSub() { return add(); }
    TfLiteStatus AddUnidirectionalSequenceLSTM() { return add(); }
    TfLiteStatus AddVarHandle() { return add(); }

    MicroMutableOpResolver() = default;
    MicroMutableOpResolver(const MicroMutableOpResolver &) = delete;
    MicroMutableOpResolver &operator=(const MicroMutableOpResolver &) = delete;

  private:
    TfLiteStatus add() { return ++added <= tOpCount ? kTfLiteOk : kTfLiteError; }
};

}  // namespace tflite

#endif
