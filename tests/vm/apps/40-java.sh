#!/usr/bin/env bash
# Java with ExtendedOpenOption.DIRECT, both kinds of buffers.
. "$(dirname "$0")/../lib.sh"

start_file 64M
cat >"$SCRATCH/Direct.java" <<'JAVA'
import com.sun.nio.file.ExtendedOpenOption;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import static java.nio.file.StandardOpenOption.*;

public class Direct {
    static final int SIZE = 1 << 16, BLOCK = 4096, ROUNDS = 256;

    static void check(ByteBuffer buffer, int round) {
        buffer.clear();
        for (int i = 0; i < SIZE; i += 8)
            if (buffer.getLong() != (long) round * SIZE + i)
                throw new RuntimeException("wrong data in round " + round + " at " + i);
    }
    public static void main(String[] args) throws Exception {
        ByteBuffer direct = ByteBuffer.allocateDirect(SIZE + BLOCK - 1).alignedSlice(BLOCK);
        direct.limit(SIZE);
        ByteBuffer buffer = direct.slice();
        try (FileChannel f = FileChannel.open(Path.of(args[0]), READ, WRITE, ExtendedOpenOption.DIRECT)) {
            for (int round = 0; round < ROUNDS; round++) {
                buffer.clear();
                for (int i = 0; i < SIZE; i += 8)
                    buffer.putLong((long) round * SIZE + i);
                buffer.flip();
                f.write(buffer, (long) round * SIZE);
            }
            ByteBuffer heap = ByteBuffer.allocate(SIZE); // by way of a temporary buffer
            for (int round = 0; round < ROUNDS; round++) {
                ByteBuffer into = round % 2 == 0 ? buffer : heap;
                into.clear();
                f.read(into, (long) round * SIZE);
                check(into, round);
            }
        }
    }
}
JAVA
javac -d "$SCRATCH" "$SCRATCH/Direct.java"
share_at_least 950 "java, direct and heap buffers" \
    env LD_PRELOAD="$SHIM" java -Xmx64m -Xshare:auto -cp "$SCRATCH" Direct "$DEVICE"
# and through the copy path
java -Xmx64m -cp "$SCRATCH" Direct "$DEVICE"
