package org.tensorflow.lite;

import host.Native;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.util.Map;

/** The calls of LiteRT 2's Interpreter that the generated classes make, over LiteRT's C library. */
public final class Interpreter implements AutoCloseable {
    private final long handle;

    public static final class Options {
        public Options setNumThreads(int threads) {
            return this;
        }
    }

    public Interpreter(ByteBuffer model, Options options) {
        if (!(model instanceof MappedByteBuffer) && model.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("Model ByteBuffer should be direct, in the native order");
        }
        handle = Native.open(model);
    }

    public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
        ByteBuffer[] given = new ByteBuffer[inputs.length];
        for (int i = 0; i < inputs.length; i++) {
            given[i] = ready((ByteBuffer) inputs[i]);
        }
        ByteBuffer[] wanted = new ByteBuffer[outputs.size()];
        for (Map.Entry<Integer, Object> output : outputs.entrySet()) {
            wanted[output.getKey()] = ready((ByteBuffer) output.getValue());
        }
        Native.run(handle, 0, given, wanted);
        for (ByteBuffer output : wanted) {
            output.position(output.limit());
        }
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String key) {
        int number = 0;
        while (!key.equals(Native.key(handle, number))) {
            if (Native.key(handle, number++) == null) {
                throw new IllegalArgumentException("No signature is called " + key);
            }
        }
        ByteBuffer[] wanted = ordered(outputs, Native.names(handle, number, true));
        Native.run(handle, number, ordered(inputs, Native.names(handle, number, false)), wanted);
        for (ByteBuffer output : wanted) {
            output.position(output.limit());
        }
    }

    private static ByteBuffer[] ordered(Map<String, Object> buffers, String[] names) {
        if (names.length != buffers.size()) {
            throw new IllegalArgumentException("Expected " + names.length + " buffers, got " + buffers.keySet());
        }
        ByteBuffer[] found = new ByteBuffer[names.length];
        for (int i = 0; i < names.length; i++) {
            found[i] = ready((ByteBuffer) buffers.get(names[i]));
        }
        return found;
    }

    private static ByteBuffer ready(ByteBuffer buffer) {
        if (!buffer.isDirect() || buffer.order() != ByteOrder.nativeOrder() || buffer.position() != 0) {
            throw new IllegalArgumentException("Expected a rewound direct buffer in the native order");
        }
        return buffer;
    }

    @Override
    public void close() {
        Native.close(handle);
    }
}
