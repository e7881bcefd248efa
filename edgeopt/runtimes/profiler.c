/* A delegate that claims no operator: it puts a clock around each one's invoke.
 *
 * One profile at a time in a process. Attached last, it times the nodes that really run: the operators that no
 * delegate took, and the delegates' own nodes.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdlib.h>
#include <time.h>

#include "delegate.h"

typedef struct {
  const TfLiteNode *node;
  int (*invoke)(TfLiteContext *, TfLiteNode *);
  int index;
  int64_t runs;
} Record;

static Record *records;
static int record_count;
static int64_t *samples; /* [record_count, capacity] nanoseconds */
static int64_t capacity;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int timed(TfLiteContext *context, TfLiteNode *node) {
  int i = 0;
  while (records[i].node != node) i++;
  Record *record = &records[i];
  const int64_t start = now_ns();
  const int status = record->invoke(context, node);
  const int64_t duration = now_ns() - start;
  if (record->runs < capacity) samples[i * capacity + record->runs++] = duration;
  return status;
}

static int prepare(TfLiteContext *context, TfLiteDelegate *delegate) {
  (void)delegate;
  TfLiteIntArray *plan;
  if (records) return kTfLiteOk; /* Called again for the bodies of control flow: their time is in the caller's. */
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  records = calloc((size_t)plan->size + 1, sizeof *records);
  samples = calloc((size_t)plan->size * (size_t)capacity + 1, sizeof *samples);
  if (!records || !samples) return kTfLiteError;
  for (int i = 0; i < plan->size; i++) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != kTfLiteOk) return kTfLiteError;
    records[record_count++] = (Record){node, registration->invoke, plan->data[i], 0};
    registration->invoke = timed;
  }
  return kTfLiteOk;
}

/* The option "runs" says how many runs of each node are kept. */
TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  (void)keys;
  if (count != 1) {
    report("expected the one option 'runs'");
    return NULL;
  }
  capacity = atoll(values[0]);
  TfLiteDelegate *delegate = calloc(1, sizeof *delegate);
  if (delegate) delegate->Prepare = prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  free(delegate);
  free(records);
  free(samples);
  records = NULL;
  samples = NULL;
  record_count = 0;
}

/* Forgets what was timed so far: the warm-up. */
void edgeopt_profiler_reset(void) {
  for (int i = 0; i < record_count; i++) records[i].runs = 0;
}

int edgeopt_profiler_nodes(void) { return record_count; }

/* Index of the i-th node that runs, in the order of the execution plan; its samples and how many there are. */
int edgeopt_profiler_node(int i, const int64_t **of_node, int64_t *runs) {
  *of_node = samples + i * capacity;
  *runs = records[i].runs;
  return records[i].index;
}
