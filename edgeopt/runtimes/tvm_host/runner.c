/* Runs a library that TVM compiled: samples go in, its outputs come out.
 *
 *   runner LIBRARY DESCRIPTION INPUTS OUTPUTS
 *
 * DESCRIPTION has a line for each input, in the order of the model: DLPack's code and bits of its elements, how many
 * dimensions it has, and each of them. INPUTS holds samples one after another, each all inputs in this order; so does
 * OUTPUTS. It needs tvm/ffi/c_api.h to build, and libtvm_ffi.so and libtvm_runtime.so to run: `pip install apache-tvm`
 * has all of them.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#define MOST_INPUTS 64
#define MOST_DIMENSIONS 8
#define POOLED_ALLOCATOR 2

typedef struct {
  DLManagedTensor managed;
  int64_t shape[MOST_DIMENSIONS];
  size_t bytes;
} Input;

static void fail(const char* what) {
  TVMFFIObjectHandle error = NULL;
  TVMFFIErrorMoveFromRaised(&error);
  if (error != NULL) {
    const TVMFFIErrorCell* cell = (const TVMFFIErrorCell*)((const char*)error + sizeof(TVMFFIObject));
    fprintf(stderr, "%s: %.*s\n", what, (int)cell->message.size, cell->message.data);
  } else {
    fprintf(stderr, "%s\n", what);
  }
  exit(1);
}

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny* arguments, int count, const char* what) {
  TVMFFIAny result;
  memset(&result, 0, sizeof result);
  if (function == NULL || TVMFFIFunctionCall(function, arguments, count, &result) != 0) fail(what);
  return result;
}

static TVMFFIAny integer(int64_t value) {
  TVMFFIAny any;
  memset(&any, 0, sizeof any);
  any.type_index = kTVMFFIInt;
  any.v_int64 = value;
  return any;
}

static TVMFFIAny text(const char* value) {
  TVMFFIAny any;
  memset(&any, 0, sizeof any);
  any.type_index = kTVMFFIRawStr;
  any.v_c_str = value;
  return any;
}

static TVMFFIObjectHandle global(const char* name) {
  TVMFFIByteArray key = {name, strlen(name)};
  TVMFFIObjectHandle found = NULL;
  if (TVMFFIFunctionGetGlobal(&key, &found) != 0 || found == NULL) fail(name);
  return found;
}

static TVMFFIObjectHandle function_of(TVMFFIAny module, const char* name) {
  TVMFFIAny arguments[3] = {module, text(name), integer(1)};
  arguments[2].type_index = kTVMFFIBool;
  return call(global("ffi.ModuleGetFunction"), arguments, 3, name).v_obj;
}

static void kept(DLManagedTensor* self) { (void)self; }

static int read_inputs(const char* path, Input* inputs) {
  FILE* file = fopen(path, "r");
  int count = 0, code, bits, dimensions;
  if (file == NULL) fail("the description cannot be read");
  while (count < MOST_INPUTS && fscanf(file, "%d %d %d", &code, &bits, &dimensions) == 3) {
    Input* input = &inputs[count++];
    DLTensor* tensor = &input->managed.dl_tensor;
    if (dimensions < 0 || dimensions > MOST_DIMENSIONS) fail("the description has too many dimensions");
    memset(input, 0, sizeof *input);
    input->bytes = (size_t)(bits + 7) / 8;
    for (int i = 0; i < dimensions; i++) {
      long long size;
      if (fscanf(file, "%lld", &size) != 1 || size < 1) fail("the description is cut off");
      input->shape[i] = size;
      input->bytes *= (size_t)size;
    }
    tensor->device.device_type = kDLCPU;
    tensor->dtype.code = (uint8_t)code;
    tensor->dtype.bits = (uint8_t)bits;
    tensor->dtype.lanes = 1;
    tensor->ndim = dimensions;
    tensor->shape = input->shape;
    tensor->data = aligned_alloc(64, (input->bytes + 63) / 64 * 64);
    input->managed.deleter = kept;
    if (tensor->data == NULL) fail("out of memory");
  }
  fclose(file);
  return count;
}

static void write_tensor(TVMFFIAny value, FILE* file) {
  const DLTensor* tensor = (const DLTensor*)((const char*)value.v_obj + sizeof(TVMFFIObject));
  size_t bytes = (size_t)(tensor->dtype.bits + 7) / 8;
  if (value.type_index != kTVMFFITensor) fail("an output is no tensor");
  for (int i = 0; i < tensor->ndim; i++) bytes *= (size_t)tensor->shape[i];
  if (fwrite((const char*)tensor->data + tensor->byte_offset, 1, bytes, file) != bytes) fail("the outputs cannot be written");
}

static void write_outputs(TVMFFIAny result, FILE* file) {
  if (result.type_index != kTVMFFIArray) {
    write_tensor(result, file);
    return;
  }
  int64_t count = call(global("ffi.ArraySize"), &result, 1, "outputs").v_int64;
  for (int64_t i = 0; i < count; i++) {
    TVMFFIAny arguments[2] = {result, integer(i)};
    write_tensor(call(global("ffi.ArrayGetItem"), arguments, 2, "an output"), file);
  }
}

int main(int count, char** words) {
  static Input inputs[MOST_INPUTS];
  TVMFFIAny tensors[MOST_INPUTS];
  if (count != 5) {
    fprintf(stderr, "runner LIBRARY DESCRIPTION INPUTS OUTPUTS\n");
    return 2;
  }
  char* whole = realpath(words[1], NULL); /* dlopen looks a bare name up elsewhere */
  TVMFFIAny path = text(whole ? whole : words[1]);
  TVMFFIAny library = call(global("ffi.ModuleLoadFromFile"), &path, 1, "the library cannot be loaded");
  TVMFFIAny machine = call(function_of(library, "vm_load_executable"), NULL, 0, "the library holds no model");
  TVMFFIAny device[3] = {integer(kDLCPU), integer(0), integer(POOLED_ALLOCATOR)};
  call(function_of(machine, "vm_initialization"), device, 3, "the machine cannot be set up");
  TVMFFIObjectHandle run = function_of(machine, "main");

  int inputs_count = read_inputs(words[2], inputs);
  FILE* from = fopen(words[3], "rb");
  FILE* to = fopen(words[4], "wb");
  if (from == NULL || to == NULL) fail("the inputs cannot be read, or the outputs not written");
  for (int i = 0; i < inputs_count; i++) {
    TVMFFIObjectHandle tensor = NULL;
    if (TVMFFITensorFromDLPack(&inputs[i].managed, 0, 1, &tensor) != 0) fail("an input cannot be made");
    memset(&tensors[i], 0, sizeof tensors[i]);
    tensors[i].type_index = kTVMFFITensor;
    tensors[i].v_obj = tensor;
  }
  for (;;) {
    for (int i = 0; i < inputs_count; i++) {
      size_t got = fread(inputs[i].managed.dl_tensor.data, 1, inputs[i].bytes, from);
      if (got == 0 && i == 0) {
        fclose(from);
        return fclose(to) == 0 ? 0 : 1;
      }
      if (got != inputs[i].bytes) fail("the inputs are cut off");
    }
    TVMFFIAny result = call(run, tensors, inputs_count, "the model");
    write_outputs(result, to);
    if (result.type_index >= kTVMFFIStaticObjectBegin) TVMFFIObjectDecRef(result.v_obj);
  }
}
