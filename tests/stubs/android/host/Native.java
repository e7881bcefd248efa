package host;

import java.nio.ByteBuffer;

/** LiteRT's C library (litert.c); inputs and outputs are in the order of the main graph. */
public final class Native {
    static {
        System.load(System.getProperty("shim"));
    }

    private Native() {}

    public static native long open(ByteBuffer model);

    public static native String[] names(long handle, boolean outputs);

    public static native int bytes(long handle, int index, boolean outputs);

    public static native void run(long handle, ByteBuffer[] inputs, ByteBuffer[] outputs);

    public static native void close(long handle);
}
