package com.google.ai.edge.litert;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

public final class TensorBuffer implements AutoCloseable {
    final ByteBuffer memory;

    TensorBuffer(int bytes) {
        memory = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }

    private ByteBuffer sized(int bytes) {
        if (bytes != memory.capacity()) {
            throw new LiteRtException("Expected " + memory.capacity() + " bytes, got " + bytes);
        }
        memory.rewind();
        return memory;
    }

    public void writeFloat(float[] data) {
        sized(4 * data.length).asFloatBuffer().put(data);
    }

    public void writeInt(int[] data) {
        sized(4 * data.length).asIntBuffer().put(data);
    }

    public void writeInt8(byte[] data) {
        sized(data.length).put(data);
    }

    public void writeBoolean(boolean[] data) {
        sized(data.length);
        for (boolean value : data) {
            memory.put((byte) (value ? 1 : 0));
        }
    }

    public float[] readFloat() {
        memory.rewind();
        float[] data = new float[memory.capacity() / 4];
        memory.asFloatBuffer().get(data);
        return data;
    }

    public int[] readInt() {
        memory.rewind();
        int[] data = new int[memory.capacity() / 4];
        memory.asIntBuffer().get(data);
        return data;
    }

    public byte[] readInt8() {
        memory.rewind();
        byte[] data = new byte[memory.capacity()];
        memory.get(data);
        return data;
    }

    public boolean[] readBoolean() {
        boolean[] data = new boolean[memory.capacity()];
        for (int i = 0; i < data.length; i++) {
            data[i] = memory.get(i) != 0;
        }
        return data;
    }

    @Override
    public void close() {}
}
