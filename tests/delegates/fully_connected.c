/* A real external delegate: computes FULLY_CONNECTED on float32 with constant weights.
 *
 * Options: "gain" multiplies every result, "claim" set to "nothing" takes no operator. Others are refused.
 * Built with -DABORT_ON_LOAD it ends the process that loads it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delegate.h"

typedef struct {
  float gain;
  int claims;
} Options;

typedef struct {
  int input, weights, bias, output, relu;
} Layer;

typedef struct {
  Options options;
  int layers;
  Layer layer[];
} Kernel;

static int is_ours(TfLiteContext *context, int index, TfLiteNode **node) {
  TfLiteRegistration *registration;
  context->GetNodeAndRegistration(context, index, node, &registration);
  if (registration->builtin_code != kTfLiteBuiltinFullyConnected) return 0;
  const TfLiteIntArray *inputs = (*node)->inputs;
  const int activation = ((TfLiteFullyConnectedParams *)(*node)->builtin_data)->activation;
  if (activation != kTfLiteActNone && activation != kTfLiteActRelu) return 0;
  if (context->tensors[inputs->data[0]].type != kTfLiteFloat32) return 0;
  const TfLiteTensor *weights = &context->tensors[inputs->data[1]];
  return weights->type == kTfLiteFloat32 && weights->data != NULL;
}

static void *init(TfLiteContext *context, const char *buffer, size_t length) {
  (void)length;
  const TfLiteDelegateParams *params = (const TfLiteDelegateParams *)buffer;
  const TfLiteIntArray *nodes = params->nodes_to_replace;
  Kernel *kernel = malloc(sizeof *kernel + (size_t)nodes->size * sizeof(Layer));
  kernel->options = *(Options *)params->delegate->data;
  kernel->layers = nodes->size;
  for (int i = 0; i < nodes->size; i++) {
    TfLiteNode *node;
    is_ours(context, nodes->data[i], &node);
    const TfLiteIntArray *inputs = node->inputs;
    kernel->layer[i] = (Layer){
        inputs->data[0],
        inputs->data[1],
        inputs->size > 2 ? inputs->data[2] : -1,
        node->outputs->data[0],
        ((TfLiteFullyConnectedParams *)node->builtin_data)->activation == kTfLiteActRelu,
    };
  }
  return kernel;
}

static void release(TfLiteContext *context, void *kernel) {
  (void)context;
  free(kernel);
}

static int prepare(TfLiteContext *context, TfLiteNode *node) {
  (void)context;
  (void)node;
  return kTfLiteOk;
}

static int invoke(TfLiteContext *context, TfLiteNode *node) {
  const Kernel *kernel = node->user_data;
  float *carried = NULL; /* What lies between two layers of a partition has no memory in the interpreter. */
  int carried_tensor = -1;
  int rows = 0;
  for (int i = 0; i < kernel->layers; i++) {
    const Layer *layer = &kernel->layer[i];
    const TfLiteTensor *weights = &context->tensors[layer->weights];
    const int units = weights->dims->data[0], depth = weights->dims->data[1];
    const float *x = context->tensors[layer->input].data;
    if (layer->input == carried_tensor) {
      x = carried;
    } else {
      rows = (int)(context->tensors[layer->input].bytes / sizeof(float)) / depth;
    }
    const float *w = weights->data;
    const float *b = layer->bias < 0 ? NULL : context->tensors[layer->bias].data;
    const int is_inside = context->tensors[layer->output].data == NULL;
    float *y = is_inside ? malloc((size_t)(rows * units) * sizeof(float)) : context->tensors[layer->output].data;
    for (int row = 0; row < rows; row++) {
      for (int unit = 0; unit < units; unit++) {
        float sum = b ? b[unit] : 0.0f;
        for (int k = 0; k < depth; k++) sum += x[row * depth + k] * w[unit * depth + k];
        if (layer->relu && sum < 0.0f) sum = 0.0f;
        y[row * units + unit] = kernel->options.gain * sum;
      }
    }
    free(carried);
    carried = is_inside ? y : NULL;
    carried_tensor = is_inside ? layer->output : -1;
  }
  free(carried);
  return kTfLiteOk;
}

static int claim(TfLiteContext *context, TfLiteDelegate *delegate) {
  if (!((Options *)delegate->data)->claims) return kTfLiteOk;
  TfLiteIntArray *plan;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  TfLiteIntArray *ours = malloc(sizeof *ours + (size_t)plan->size * sizeof(int));
  ours->size = 0;
  for (int i = 0; i < plan->size; i++) {
    TfLiteNode *node;
    if (is_ours(context, plan->data[i], &node)) ours->data[ours->size++] = plan->data[i];
  }
  TfLiteRegistration kernel = {0};
  kernel.init = init;
  kernel.free = release;
  kernel.prepare = prepare;
  kernel.invoke = invoke;
  kernel.custom_name = "FullyConnectedDelegate";
  kernel.version = 1;
  const int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, ours, delegate);
  free(ours);
  return status;
}

TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  Options options = {1.0f, 1};
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "gain")) {
      options.gain = (float)atof(values[i]);
    } else if (!strcmp(keys[i], "claim")) {
      options.claims = strcmp(values[i], "nothing") != 0;
    } else {
      char message[200];
      snprintf(message, sizeof message, "unknown option '%s'", keys[i]);
      report(message);
      return NULL;
    }
  }
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  delegate->data = malloc(sizeof options);
  memcpy(delegate->data, &options, sizeof options);
  delegate->Prepare = claim;
  return delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  if (!delegate) return;
  free(delegate->data);
  free(delegate);
}

#ifdef ABORT_ON_LOAD
__attribute__((constructor)) static void on_load(void) {
  fputs("this delegate wants another machine\n", stderr);
  abort();
}
#endif
