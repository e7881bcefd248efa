package org.tensorflow.lite;

import host.Native;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The calls of LiteRT 1.4's Interpreter that the generated classes make, over LiteRT's C library. */
public final class Interpreter implements AutoCloseable {
    private final long handle;

    public static final class Options {
        private final List<Delegate> delegates = new ArrayList<>();

        public Options setNumThreads(int threads) {
            return this;
        }

        public Options addDelegate(Delegate delegate) {
            delegates.add(delegate);
            return this;
        }
    }

    public Interpreter(ByteBuffer model, Options options) {
        if (!(model instanceof MappedByteBuffer) && model.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("Model ByteBuffer should be direct, in the native order");
        }
        for (Delegate delegate : options.delegates) {
            if (delegate.getNativeHandle() == 0) {
                throw new IllegalArgumentException("Internal error: Error applying delegate");
            }
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
