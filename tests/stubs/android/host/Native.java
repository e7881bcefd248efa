package host;

import java.nio.ByteBuffer;

/** LiteRT's C library (litert.c); inputs and outputs are in the order of a signature's graph. */
public final class Native {
    static {
        System.load(System.getProperty("shim"));
    }

    private Native() {}

    public static native long open(ByteBuffer model);

    /** Returns the key of a signature, null where there are fewer. */
    public static native String key(long handle, int signature);

    public static native String[] names(long handle, int signature, boolean outputs);

    public static native int bytes(long handle, int index, boolean outputs);

    public static native void run(long handle, int signature, ByteBuffer[] inputs, ByteBuffer[] outputs);

    public static native void close(long handle);
}
