// The few calls of LiteRT's C API (libLiteRt.so of ai-edge-litert 2.3) that host.Native needs.
#include <jni.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int32_t element; uint32_t rank; int32_t sizes[8]; uint32_t strides[8]; } Type;
typedef void* Handle;

int LiteRtCreateEnvironment(int, const void*, Handle*);
void LiteRtDestroyEnvironment(Handle);
int LiteRtCreateModelFromBuffer(Handle environment, const void*, size_t, Handle*);
void LiteRtDestroyModel(Handle);
int LiteRtCreateOptions(Handle*);
void LiteRtDestroyOptions(Handle);
int LiteRtSetOptionsHardwareAccelerators(Handle, int);
int LiteRtCreateCompiledModel(Handle environment, Handle model, Handle options, Handle*);
void LiteRtDestroyCompiledModel(Handle);
int LiteRtGetNumModelSignatures(Handle model, size_t*);
int LiteRtGetModelSignature(Handle model, size_t, Handle*);
int LiteRtGetSignatureKey(Handle, const char**);
int LiteRtGetSignatureSubgraph(Handle, Handle*);
int LiteRtGetSignatureInputName(Handle, size_t, const char**);
int LiteRtGetSignatureOutputName(Handle, size_t, const char**);
int LiteRtGetSignatureInputTensorByIndex(Handle, size_t, Handle*);
int LiteRtGetSignatureOutputTensorByIndex(Handle, size_t, Handle*);
int LiteRtGetNumSubgraphInputs(Handle, size_t*);
int LiteRtGetNumSubgraphOutputs(Handle, size_t*);
int LiteRtGetSubgraphInput(Handle, size_t, Handle*);
int LiteRtGetSubgraphOutput(Handle, size_t, Handle*);
int LiteRtGetRankedTensorType(Handle, Type*);
int LiteRtGetCompiledModelInputBufferRequirements(Handle, size_t, size_t, Handle*);
int LiteRtGetCompiledModelOutputBufferRequirements(Handle, size_t, size_t, Handle*);
int LiteRtCreateManagedTensorBufferFromRequirements(Handle environment, const Type*, Handle, Handle*);
int LiteRtGetTensorBufferPackedSize(Handle, size_t*);
int LiteRtLockTensorBuffer(Handle, void**, int mode);
int LiteRtUnlockTensorBuffer(Handle);
void LiteRtDestroyTensorBuffer(Handle);
int LiteRtRunCompiledModel(Handle, size_t, size_t, Handle*, size_t, Handle*);

enum { MOST = 32, SIGNATURES = 2, CPU = 1, READ = 0, WRITE = 1 };

// One side of a signature: buffers in its order, and where each stands in its graph.
typedef struct { size_t count; Handle buffers[MOST]; size_t position[MOST]; const char* names[MOST]; size_t bytes[MOST]; } Side;
typedef struct { Handle environment, model, options, compiled; size_t signatures; Side sides[SIGNATURES][2]; } Session;

static int fill(Session* s, size_t number, int outputs) {
    Side* side = &s->sides[number][outputs];
    Handle signature, graph, tensor, requirements;
    Type type;
    if (LiteRtGetModelSignature(s->model, number, &signature) || LiteRtGetSignatureSubgraph(signature, &graph)) return 1;
    if ((outputs ? LiteRtGetNumSubgraphOutputs : LiteRtGetNumSubgraphInputs)(graph, &side->count)) return 2;
    if (side->count > MOST) return 3;
    for (size_t i = 0; i < side->count; i++) {
        if ((outputs ? LiteRtGetSignatureOutputTensorByIndex : LiteRtGetSignatureInputTensorByIndex)(signature, i, &tensor)) return 4;
        if ((outputs ? LiteRtGetSignatureOutputName : LiteRtGetSignatureInputName)(signature, i, &side->names[i])) return 5;
        side->position[i] = MOST;
        for (size_t j = 0; j < side->count; j++) {
            Handle other;
            if ((outputs ? LiteRtGetSubgraphOutput : LiteRtGetSubgraphInput)(graph, j, &other)) return 6;
            if (other == tensor) side->position[i] = j;
        }
        if (side->position[i] == MOST) return 7;
        if (LiteRtGetRankedTensorType(tensor, &type)) return 8;
        if ((outputs ? LiteRtGetCompiledModelOutputBufferRequirements : LiteRtGetCompiledModelInputBufferRequirements)(s->compiled, number, i, &requirements)) return 9;
        if (LiteRtCreateManagedTensorBufferFromRequirements(s->environment, &type, requirements, &side->buffers[i])) return 10;
        if (LiteRtGetTensorBufferPackedSize(side->buffers[i], &side->bytes[i])) return 11;
    }
    return 0;
}

static void fail(JNIEnv* env, const char* what) {
    (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/IllegalArgumentException"), what);
}

JNIEXPORT jlong JNICALL Java_host_Native_open(JNIEnv* env, jclass class, jobject model) {
    Session* s = calloc(1, sizeof *s);
    if (LiteRtCreateEnvironment(0, NULL, &s->environment) ||
        LiteRtCreateModelFromBuffer(s->environment, (*env)->GetDirectBufferAddress(env, model),
                                    (*env)->GetDirectBufferCapacity(env, model), &s->model) ||
        LiteRtCreateOptions(&s->options) || LiteRtSetOptionsHardwareAccelerators(s->options, CPU) ||
        LiteRtCreateCompiledModel(s->environment, s->model, s->options, &s->compiled) ||
        LiteRtGetNumModelSignatures(s->model, &s->signatures) || s->signatures > SIGNATURES) {
        fail(env, "LiteRT does not open the model");
        return 0;
    }
    for (size_t i = 0; i < s->signatures; i++) {
        if (fill(s, i, 0) || fill(s, i, 1)) fail(env, "LiteRT has no buffers for a signature");
    }
    return (jlong)(intptr_t)s;
}

JNIEXPORT jstring JNICALL Java_host_Native_key(JNIEnv* env, jclass class, jlong handle, jint number) {
    Session* s = (Session*)(intptr_t)handle;
    Handle signature;
    const char* key;
    if ((size_t)number >= s->signatures || LiteRtGetModelSignature(s->model, number, &signature) || LiteRtGetSignatureKey(signature, &key)) return NULL;
    return (*env)->NewStringUTF(env, key);
}

// Index of the buffer that stands at `position` of the graph.
static size_t at(const Side* side, size_t position) {
    size_t i = 0;
    while (side->position[i] != position) i++;
    return i;
}

JNIEXPORT jobjectArray JNICALL Java_host_Native_names(JNIEnv* env, jclass class, jlong handle, jint number, jboolean outputs) {
    Side* side = &((Session*)(intptr_t)handle)->sides[number][outputs];
    jobjectArray names = (*env)->NewObjectArray(env, side->count, (*env)->FindClass(env, "java/lang/String"), NULL);
    for (size_t i = 0; i < side->count; i++) {
        (*env)->SetObjectArrayElement(env, names, i, (*env)->NewStringUTF(env, side->names[at(side, i)]));
    }
    return names;
}

JNIEXPORT jint JNICALL Java_host_Native_bytes(JNIEnv* env, jclass class, jlong handle, jint index, jboolean outputs) {
    Side* side = &((Session*)(intptr_t)handle)->sides[0][outputs];
    return side->bytes[at(side, index)];
}

static int copy(JNIEnv* env, Side* side, jobjectArray buffers, int mode) {
    for (size_t i = 0; i < side->count; i++) {
        jobject buffer = (*env)->GetObjectArrayElement(env, buffers, side->position[i]);
        void* theirs = (*env)->GetDirectBufferAddress(env, buffer);
        void* ours;
        if ((size_t)(*env)->GetDirectBufferCapacity(env, buffer) != side->bytes[i]) return 1;
        if (LiteRtLockTensorBuffer(side->buffers[i], &ours, mode)) return 2;
        memcpy(mode == WRITE ? ours : theirs, mode == WRITE ? theirs : ours, side->bytes[i]);
        LiteRtUnlockTensorBuffer(side->buffers[i]);
    }
    return 0;
}

JNIEXPORT void JNICALL Java_host_Native_run(JNIEnv* env, jclass class, jlong handle, jint number, jobjectArray inputs, jobjectArray outputs) {
    Session* s = (Session*)(intptr_t)handle;
    Side *in = &s->sides[number][0], *out = &s->sides[number][1];
    if (copy(env, in, inputs, WRITE) ||
        LiteRtRunCompiledModel(s->compiled, number, in->count, in->buffers, out->count, out->buffers) ||
        copy(env, out, outputs, READ)) {
        fail(env, "LiteRT does not run the model on these buffers");
    }
}

JNIEXPORT void JNICALL Java_host_Native_close(JNIEnv* env, jclass class, jlong handle) {
    Session* s = (Session*)(intptr_t)handle;
    for (size_t number = 0; number < s->signatures; number++) {
        for (int outputs = 0; outputs < 2; outputs++) {
            Side* side = &s->sides[number][outputs];
            for (size_t i = 0; i < side->count; i++) LiteRtDestroyTensorBuffer(side->buffers[i]);
        }
    }
    LiteRtDestroyCompiledModel(s->compiled);
    LiteRtDestroyOptions(s->options);
    LiteRtDestroyModel(s->model);
    LiteRtDestroyEnvironment(s->environment);
    free(s);
}
