import android.content.Context;
import android.content.res.AssetManager;
import android.graphics.Bitmap;
import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.List;

/** Calls generated classes and prints what they give: {@code Try MODEL SELF_TEST COMPILED|- ASSETS INPUTS}. */
public final class Try {
    public static void main(String[] arguments) throws Exception {
        Class<?> model = Class.forName(arguments[0]);
        Class<?> test = Class.forName(arguments[1]);
        Context context = new Context(new AssetManager(new File(arguments[3])));
        float[][][] samples = samples(arguments[4]);
        Object java = model.getMethod("open", Context.class, int.class).invoke(null, context, 2);
        Object runner = model.getMethod("runner").invoke(java);
        report("java", model, test, runner, context, samples);
        System.out.println("preprocessed " + bits((float[]) call(model, "preprocess", null, (Object) samples[0][0])));
        labels(model);
        pixels(model);
        refusals(model, java, context);
        if (!arguments[2].equals("-")) {
            compiled(Class.forName(arguments[2]), model, test, context, samples);
        }
        stream(model, runner, samples);
        ((AutoCloseable) java).close();
    }

    /** Lets what carries states from step to step read the frames of samples that are the steps of one, twice. */
    private static void stream(Class<?> model, Object runner, float[][][] steps) throws Exception {
        Class<?> kind;
        try {
            kind = Class.forName(model.getName().replaceFirst("Model$", "Stream"));
        } catch (ClassNotFoundException none) {
            return;
        }
        Object[] tensors = (Object[]) model.getMethod("inputs").invoke(null);
        Object stream = kind.getConstructor(Class.forName(model.getName() + "$Runner")).newInstance(runner);
        Method step = kind.getMethod("step", float[].class, int.class);
        for (int pass = 0; pass < 2; pass++) {
            for (float[][] sample : steps) {
                float[] frames = null;
                int heard = (int) kind.getField("FRAMES").get(null);
                for (int i = 0; i < tensors.length; i++) {
                    String name = (String) tensors[i].getClass().getField("name").get(tensors[i]);
                    frames = name.equals("frames") ? sample[i] : frames;
                    if (name.equals("valid")) {
                        heard = 0;
                        for (float flag : sample[i]) {
                            heard += Math.round(flag);
                        }
                    }
                }
                for (float[] answer : (float[][]) step.invoke(stream, frames, heard)) {
                    System.out.println("step " + bits(answer));
                }
            }
            kind.getMethod("reset").invoke(stream);
        }
    }

    private static float[][][] samples(String file) throws Exception {
        try (DataInputStream stream = new DataInputStream(new FileInputStream(file))) {
            float[][][] samples = new float[stream.readInt()][stream.readInt()][];
            for (float[][] sample : samples) {
                for (int i = 0; i < sample.length; i++) {
                    sample[i] = new float[stream.readInt()];
                    for (int j = 0; j < sample[i].length; j++) {
                        sample[i][j] = stream.readFloat();
                    }
                }
            }
            return samples;
        }
    }

    private static void report(
            String what, Class<?> model, Class<?> test, Object runner, Context context, float[][][] samples)
            throws Exception {
        Class<?> kind = Class.forName(model.getName() + "$Runner");
        System.out.println(what + " ran on " + kind.getMethod("ranOn").invoke(runner));
        for (float[][] sample : samples) {
            reset(kind, runner);
            print(what + " output ", kind, runner, sample);
        }
        if (reset(kind, runner)) {
            for (float[][] sample : samples) {
                print(what + " went on ", kind, runner, sample);
            }
        }
        selfTest(what, kind, test, runner, context);
        Object wrong = Proxy.newProxyInstance(kind.getClassLoader(), new Class<?>[] {kind}, (proxy, method, given) -> {
            Object result = method.invoke(runner, given);
            if (result instanceof float[][]) {
                ((float[][]) result)[0][0] += 1000;
            }
            return result;
        });
        selfTest(what + " with a wrong value", kind, test, wrong, context);
    }

    private static void print(String what, Class<?> kind, Object runner, float[][] sample) throws Exception {
        for (float[] output : (float[][]) kind.getMethod("run", float[][].class).invoke(runner, (Object) sample)) {
            System.out.println(what + bits(output));
        }
    }

    /** Starts a stream anew; false for a model that is none. */
    private static boolean reset(Class<?> kind, Object runner) throws Exception {
        for (Method method : kind.getMethods()) {
            if (method.getName().equals("reset")) {
                method.invoke(runner);
                return true;
            }
        }
        return false;
    }

    private static void selfTest(String what, Class<?> kind, Class<?> test, Object runner, Context context)
            throws Exception {
        Object result = test.getMethod("run", Context.class, kind).invoke(null, context, runner);
        String text = (String) result.getClass().getField("text").get(result);
        System.out.println(what + " passed " + result.getClass().getField("passed").get(result));
        System.out.println(what + " said " + text.replace('\n', ';'));
    }

    private static void labels(Class<?> model) throws Exception {
        List<?> best = (List<?>) call(model, "top", null, new float[] {0.1f, 0.4f, 0.4f, 0.1f}, 3);
        for (Object score : best) {
            System.out.println("best " + score.getClass().getField("index").get(score));
        }
        for (int i = 0; i < 4; i++) {
            StringBuilder units = new StringBuilder();
            for (char unit : ((String) call(model, "label", null, i)).toCharArray()) {
                units.append(' ').append((int) unit);
            }
            System.out.println("label" + units);
        }
    }

    private static void pixels(Class<?> model) throws Exception {
        for (Method method : model.getMethods()) {
            if (method.getName().equals("pixels")) {
                Bitmap bitmap = new Bitmap(new int[] {0xFF010203, 0xFF7F80FF, 0xFFFFFFFF, 0x00FF0000}, 2);
                System.out.println("pixels " + bits((float[]) method.invoke(null, bitmap)));
            }
        }
    }

    private static void refusals(Class<?> model, Object opened, Context context) throws Exception {
        attempt("NaN", model, opened, Float.NaN, 1);
        attempt("short", model, opened, 0, 2);
        try {
            call(model, "run", opened, (Object) new float[0][]);
        } catch (InvocationTargetException error) {
            System.out.println("none: " + error.getCause().getMessage());
        }
        Class<?> maker;
        try {
            maker = Class.forName(model.getName() + "$DelegateMaker");
        } catch (ClassNotFoundException none) {
            return;
        }
        Class<?> fallback = Class.forName(model.getName() + "$Fallback");
        Method open = model.getMethod("open", Context.class, int.class, String.class, maker, fallback);
        for (long handle = 0; handle < 2; handle++) {
            Object delegate = delegate(handle);
            Object gpu = Proxy.newProxyInstance(
                    maker.getClassLoader(), new Class<?>[] {maker}, (proxy, method, given) -> delegate);
            for (Object policy : fallback.getEnumConstants()) {
                String what = "delegate " + handle + " " + policy + ": ";
                try (AutoCloseable other = (AutoCloseable) open.invoke(null, context, 1, "GPU", gpu, policy)) {
                    System.out.println(what + model.getMethod("ranOn").invoke(other));
                } catch (InvocationTargetException error) {
                    System.out.println(what + error.getCause().getMessage());
                }
            }
        }
    }

    private static Object delegate(long handle) throws Exception {
        Class<?> kind = Class.forName("org.tensorflow.lite.Delegate");
        return Proxy.newProxyInstance(
                kind.getClassLoader(),
                new Class<?>[] {kind},
                (proxy, method, given) -> method.getName().equals("getNativeHandle") ? handle : null);
    }

    private static void attempt(String what, Class<?> model, Object opened, float value, int divisor)
            throws Exception {
        Object[] tensors = (Object[]) model.getMethod("inputs").invoke(null);
        float[][] values = new float[tensors.length][];
        for (int i = 0; i < tensors.length; i++) {
            values[i] = new float[(int) tensors[i].getClass().getField("elements").get(tensors[i]) / divisor];
            if (values[i].length > 0) {
                values[i][0] = value;
            }
        }
        try {
            call(model, "run", opened, (Object) values);
            System.out.println(what + ": ran");
        } catch (InvocationTargetException error) {
            System.out.println(what + ": " + error.getCause().getMessage());
        }
    }

    private static void compiled(Class<?> kind, Class<?> model, Class<?> test, Context context, float[][][] samples)
            throws Exception {
        Class<?> accelerators = com.google.ai.edge.litert.Accelerator.class;
        Class<?> fallbacks = Class.forName(model.getName() + "$Fallback");
        Method open = kind.getMethod("open", AssetManager.class, accelerators, fallbacks);
        AssetManager assets = context.getAssets();
        Object onCpu = kind.getMethod("open", AssetManager.class).invoke(null, assets);
        report("kotlin", model, test, onCpu, context, samples);
        ((AutoCloseable) onCpu).close();
        for (Object policy : fallbacks.getEnumConstants()) {
            try {
                Object opened = open.invoke(null, assets, com.google.ai.edge.litert.Accelerator.GPU, policy);
                System.out.println("GPU " + policy + ": " + kind.getMethod("ranOn").invoke(opened));
            } catch (InvocationTargetException error) {
                System.out.println("GPU " + policy + ": " + error.getCause().getMessage());
            }
        }
    }

    private static Object call(Class<?> kind, String name, Object on, Object... arguments) throws Exception {
        for (Method method : kind.getMethods()) {
            if (method.getName().equals(name)) {
                return method.invoke(on, arguments);
            }
        }
        throw new NoSuchMethodException(name);
    }

    private static String bits(float[] values) {
        StringBuilder text = new StringBuilder();
        for (float value : values) {
            text.append(Integer.toHexString(Float.floatToRawIntBits(value))).append(' ');
        }
        return text.toString();
    }
}
