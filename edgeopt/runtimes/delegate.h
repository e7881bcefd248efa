/* The part of TensorFlow Lite's C interface (tensorflow/lite/core/c/common.h) that an external delegate needs.
 *
 * Declared by hand, so that a delegate builds with a C compiler alone. The layouts are those of tflite-runtime 2.14
 * up to LiteRT 2.3; members past those used here are only reserved.
 */
#ifndef EDGEOPT_DELEGATE_H
#define EDGEOPT_DELEGATE_H

#include <stddef.h>
#include <stdint.h>

enum { kTfLiteOk = 0, kTfLiteError = 1 };
enum { kTfLiteFloat32 = 1 };
enum { kTfLiteBuiltinFullyConnected = 9 };
enum { kTfLiteActNone = 0, kTfLiteActRelu = 1 };

typedef struct TfLiteContext TfLiteContext;
typedef struct TfLiteDelegate TfLiteDelegate;

typedef struct {
  int size;
  int data[];
} TfLiteIntArray;

typedef struct {
  int type;
  void *data;
  TfLiteIntArray *dims;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  TfLiteDelegate *delegate;
  int buffer_handle;
  uint8_t data_is_stale;
  uint8_t is_variable;
  struct {
    int type;
    void *params;
  } quantization;
  void *sparsity;
  const TfLiteIntArray *dims_signature;
} TfLiteTensor;

typedef struct {
  TfLiteIntArray *inputs;
  TfLiteIntArray *outputs;
  TfLiteIntArray *intermediates;
  TfLiteIntArray *temporaries;
  void *user_data;
  void *builtin_data;
} TfLiteNode;

typedef struct {
  void *(*init)(TfLiteContext *, const char *buffer, size_t length);
  void (*free)(TfLiteContext *, void *buffer);
  int (*prepare)(TfLiteContext *, TfLiteNode *);
  int (*invoke)(TfLiteContext *, TfLiteNode *);
  const char *(*profiling_string)(const TfLiteContext *, const TfLiteNode *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *reserved[4];
} TfLiteRegistration;

struct TfLiteContext {
  size_t tensors_size;
  int (*GetExecutionPlan)(TfLiteContext *, TfLiteIntArray **plan);
  TfLiteTensor *tensors;
  void *impl;
  int (*ResizeTensor)(TfLiteContext *, TfLiteTensor *, TfLiteIntArray *new_size);
  void (*ReportError)(TfLiteContext *, const char *format, ...);
  int (*AddTensors)(TfLiteContext *, int count, int *first);
  int (*GetNodeAndRegistration)(TfLiteContext *, int index, TfLiteNode **, TfLiteRegistration **);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext *, TfLiteRegistration, const TfLiteIntArray *nodes,
                                               TfLiteDelegate *);
};

/* What a kernel that replaces nodes gets as `buffer` of its init. */
typedef struct {
  TfLiteDelegate *delegate;
  TfLiteIntArray *nodes_to_replace;
  TfLiteIntArray *input_tensors;
  TfLiteIntArray *output_tensors;
} TfLiteDelegateParams;

/* builtin_data of FULLY_CONNECTED. */
typedef struct {
  int activation;
} TfLiteFullyConnectedParams;

struct TfLiteDelegate {
  void *data;
  int (*Prepare)(TfLiteContext *, TfLiteDelegate *);
  void *CopyFromBufferHandle;
  void *CopyToBufferHandle;
  void *FreeBufferHandle;
  int64_t flags;
  void *reserved[8];
};

#endif
