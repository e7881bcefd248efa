import android.content.Context;
import android.content.res.AssetManager;
import java.io.File;
import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;

/** Lets a generated writer write, and prints it: {@code TryWriter MODEL SELF_TEST ASSETS COUNT TOKEN...}. */
public final class TryWriter {
    public static void main(String[] arguments) throws Exception {
        Class<?> model = Class.forName(arguments[0]);
        Class<?> test = Class.forName(arguments[1]);
        Context context = new Context(new AssetManager(new File(arguments[2])));
        int[] prompt = new int[arguments.length - 4];
        for (int i = 0; i < prompt.length; i++) {
            prompt[i] = Integer.parseInt(arguments[i + 4]);
        }
        try (AutoCloseable writer = (AutoCloseable) model.getMethod("open", Context.class, int.class).invoke(null, context, 1)) {
            for (int time = 0; time < 2; time++) {
                System.out.println("wrote " + Arrays.toString(written(model, writer, prompt, Integer.parseInt(arguments[3]))));
            }
            Object result = test.getMethod("run", model).invoke(null, writer);
            System.out.println("passed " + result.getClass().getField("passed").get(result));
            System.out.println("said " + result.getClass().getField("text").get(result));
            for (int[] wrong : new int[][] {{}, {-1}, new int[100000]}) {
                try {
                    written(model, writer, wrong, 1);
                } catch (InvocationTargetException refusal) {
                    System.out.println("refused " + refusal.getCause().getMessage());
                }
            }
        }
    }

    private static int[] written(Class<?> model, Object writer, int[] prompt, int count) throws Exception {
        return (int[]) model.getMethod("write", int[].class, int.class).invoke(writer, prompt, count);
    }
}
