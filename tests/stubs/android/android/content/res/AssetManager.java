package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** Assets in a folder; as Android's, it opens no descriptor of a file that is packed compressed (*.gz here). */
public class AssetManager {
    private final File folder;

    public AssetManager(File folder) {
        this.folder = folder;
    }

    public AssetFileDescriptor openFd(String name) throws IOException {
        if (new File(folder, name + ".gz").exists()) {
            throw new FileNotFoundException(
                    "This file can not be opened as a file descriptor; it is probably compressed");
        }
        File file = new File(folder, name);
        return new AssetFileDescriptor(new FileInputStream(file), 0, file.length());
    }

    public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(folder, name));
    }
}
