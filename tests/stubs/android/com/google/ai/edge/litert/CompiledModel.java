package com.google.ai.edge.litert;

import android.content.res.AssetFileDescriptor;
import android.content.res.AssetManager;
import host.Native;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.util.Arrays;
import java.util.Map;

/** The calls of LiteRT's CompiledModel that the generated classes make, over LiteRT's C library, on the CPU. */
public final class CompiledModel implements AutoCloseable {
    private final long handle;

    public static final class Options {
        private final Accelerator[] accelerators;

        public Options(Accelerator... accelerators) {
            this.accelerators = accelerators;
        }
    }

    private CompiledModel(long handle) {
        this.handle = handle;
    }

    public static CompiledModel create(AssetManager assets, String name, Options options) {
        if (!Arrays.asList(options.accelerators).contains(Accelerator.CPU)) {
            throw new LiteRtException("Failed to compile model");
        }
        try (AssetFileDescriptor asset = assets.openFd(name);
                FileInputStream stream = new FileInputStream(asset.getFileDescriptor())) {
            ByteBuffer model = stream.getChannel().map(FileChannel.MapMode.READ_ONLY, 0, asset.getDeclaredLength());
            return new CompiledModel(Native.open(model));
        } catch (IOException error) {
            throw new LiteRtException(error.toString());
        }
    }

    public TensorBuffer createInputBuffer(String name) {
        return new TensorBuffer(Native.bytes(handle, index(name, false), false));
    }

    public TensorBuffer createOutputBuffer(String name) {
        return new TensorBuffer(Native.bytes(handle, index(name, true), true));
    }

    public void run(Map<String, TensorBuffer> inputs, Map<String, TensorBuffer> outputs) {
        Native.run(handle, 0, ordered(inputs, false), ordered(outputs, true));
    }

    private ByteBuffer[] ordered(Map<String, TensorBuffer> buffers, boolean outputs) {
        ByteBuffer[] result = new ByteBuffer[buffers.size()];
        for (Map.Entry<String, TensorBuffer> buffer : buffers.entrySet()) {
            result[index(buffer.getKey(), outputs)] = buffer.getValue().memory;
        }
        return result;
    }

    private int index(String name, boolean outputs) {
        String[] names = Native.names(handle, 0, outputs);
        for (int i = 0; i < names.length; i++) {
            if (names[i].equals(name)) {
                return i;
            }
        }
        throw new LiteRtException("No input or output is called " + name);
    }

    @Override
    public void close() {
        Native.close(handle);
    }
}
