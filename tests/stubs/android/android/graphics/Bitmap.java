package android.graphics;

/** ARGB pixels; scaling repeats them. */
public class Bitmap {
    private final int[] pixels;
    private final int width;

    public Bitmap(int[] pixels, int width) {
        this.pixels = pixels;
        this.width = width;
    }

    public static Bitmap createScaledBitmap(Bitmap source, int width, int height, boolean filter) {
        int[] scaled = new int[width * height];
        int rows = source.pixels.length / source.width;
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                scaled[y * width + x] = source.pixels[y * rows / height * source.width + x * source.width / width];
            }
        }
        return new Bitmap(scaled, width);
    }

    public void getPixels(int[] into, int offset, int stride, int x, int y, int width, int height) {
        for (int row = 0; row < height; row++) {
            System.arraycopy(pixels, (y + row) * this.width + x, into, offset + row * stride, width);
        }
    }
}
