package androidx.test.platform.app;

import android.content.Context;

public final class InstrumentationRegistry {
    public static final class Instrumentation {
        public Context getTargetContext() {
            return null;
        }
    }

    public static Instrumentation getInstrumentation() {
        return new Instrumentation();
    }
}
