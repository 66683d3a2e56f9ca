package conpaas.sessions;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ThreadLocalRandom;

/**
 * The session stores (Redis) of a service. Every session is in all of them, each time with a counter that grows; what is read is the newest
 * of what they hold, so any of them may be lost at any moment. The list of stores is the agent's, and may change at any moment.
 */
final class Stores {
    /** Milliseconds to connect, and to wait for an answer: first, and when no store is left. */
    private static final int[] CONNECT_TIMEOUT = {100, 1000};
    private static final int[] ANSWER_TIMEOUT = {1000, 3000};
    /** Milliseconds for which a store that did not answer is left alone. */
    private static final long DEAD_FOR = 2000;
    private static final int IDLE_CONNECTIONS = 64;
    private static final long LOCK_TIME = 60_000;
    /** A lock stays out of the log from which a store starts again: who had it could not let go of it while the store was away. */
    private static final String LOCK =
        "redis.set_repl(redis.REPL_NONE) return redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])";
    private static final byte[] UNLOCK = bytes(
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0");

    /** What the stores hold of a session: its counter and content (null: there is none), and which of them hold just that. */
    record Found(long counter, byte[] content, Set<String> current, boolean blind) {
    }

    private final Path list;
    private volatile Known known = new Known("", List.of(), new Object());
    private final Map<String, Deque<Connection>> idle = new ConcurrentHashMap<>();
    private final Map<String, Long> dead = new ConcurrentHashMap<>();

    private record Known(String secret, List<String> names, Object stamp) {
    }

    Stores(Path list) {
        this.list = list;
    }

    /** Take the lock of a session in every store that answers, always in the same order. False: others hold it for too long. */
    boolean lock(String id, String token, long patience, Set<String> locked) {
        long deadline = System.currentTimeMillis() + patience;
        for (String name : names()) {
            long pause = 1_000_000;
            while (true) {
                Object[] answers = ask(name, command("EVAL", LOCK, "1", "l:" + id, token, Long.toString(LOCK_TIME)), 0);
                if (answers == null) {
                    tell(name, unlocking(id, token)); // it may take the lock when it wakes up
                    break;
                }
                if (answers[0] != null) {
                    locked.add(name);
                    break;
                }
                if (System.currentTimeMillis() > deadline) {
                    unlock(id, token, locked);
                    return false;
                }
                try {
                    Thread.sleep(pause / 1_000_000, (int) (ThreadLocalRandom.current().nextLong(pause) % 1_000_000));
                } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                    unlock(id, token, locked);
                    return false;
                }
                pause = Math.min(50_000_000, pause * 2);
            }
        }
        return true;
    }

    void unlock(String id, String token, Set<String> locked) {
        for (String name : locked) {
            if (ask(name, java.util.Collections.singletonList(unlocking(id, token)), 0) == null) {
                tell(name, unlocking(id, token));
            }
        }
        locked.clear();
    }

    Found read(String id) {
        Found found = read(id, names(), 0);
        return found.blind() ? read(id, known.names, 1) : found;
    }

    private Found read(String id, List<String> names, int patience) {
        Map<String, Long> counters = new LinkedHashMap<>();
        long newest = 0;
        byte[] content = null;
        for (String name : names) {
            Object[] answers = ask(name, command("GET", "s:" + id), patience);
            if (answers == null) {
                continue;
            }
            long counter = 0;
            if (answers[0] instanceof byte[] value) {
                int blank = 0;
                while (blank < value.length && value[blank] != ' ') {
                    counter = counter * 10 + value[blank++] - '0';
                }
                if (counter > newest) {
                    newest = counter;
                    content = value[blank + 1] == '+' ? java.util.Arrays.copyOfRange(value, blank + 2, value.length) : null;
                }
            }
            counters.put(name, counter);
        }
        Set<String> current = new TreeSet<>();
        for (Map.Entry<String, Long> one : counters.entrySet()) {
            if (one.getValue() == newest && newest > 0) {
                current.add(one.getKey());
            }
        }
        return new Found(newest, content, current, counters.isEmpty());
    }

    /** Put a session (null: that it is gone) into every store, and let go of its lock. Returns how many took it. */
    int write(String id, long counter, byte[] content, long seconds, String token, Set<String> locked) {
        byte[] head = bytes(counter + (content == null ? " -" : " +"));
        byte[] value = new byte[head.length + (content == null ? 0 : content.length)];
        System.arraycopy(head, 0, value, 0, head.length);
        if (content != null) {
            System.arraycopy(content, 0, value, head.length, content.length);
        }
        int taken = write(id, value, seconds, token, locked, names(), 0);
        if (taken == 0) {
            taken = write(id, value, seconds, token, locked, known.names, 1);
        }
        unlock(id, token, locked);
        return taken;
    }

    private int write(String id, byte[] value, long seconds, String token, Set<String> locked, List<String> names, int patience) {
        int taken = 0;
        for (String name : names) {
            List<byte[][]> commands = new ArrayList<>();
            commands.add(new byte[][] {bytes("SETEX"), bytes("s:" + id), bytes(Long.toString(seconds)), value});
            boolean held = locked.remove(name);
            if (held) {
                commands.add(unlocking(id, token));
            }
            Object[] answers = ask(name, commands, patience);
            if (answers != null && !(answers[0] instanceof IOException)) {
                taken++;
            } else if (answers == null && held) {
                tell(name, unlocking(id, token));
            }
        }
        return taken;
    }

    /** Let a session live on for a while in the stores that hold it; false if not all stores that answer do. */
    boolean touch(String id, long seconds, Set<String> current) {
        for (String name : names()) {
            Object[] answers = current.contains(name) ? ask(name, command("EXPIRE", "s:" + id, Long.toString(seconds)), 0) : new Object[] {0L};
            if (answers != null && !Long.valueOf(1).equals(answers[0])) {
                return false;
            }
        }
        return true;
    }

    void close() {
        for (Deque<Connection> connections : idle.values()) {
            for (Connection one = connections.poll(); one != null; one = connections.poll()) {
                one.close();
            }
        }
    }

    /** The stores that are not known to be dead. */
    private List<String> names() {
        Known now = load();
        List<String> alive = new ArrayList<>();
        for (String name : now.names) {
            Long since = dead.get(name);
            if (since == null || System.currentTimeMillis() - since > DEAD_FOR) {
                alive.add(name);
            }
        }
        return alive;
    }

    private Known load() {
        Known now = known;
        try {
            Object stamp = List.of(Files.getLastModifiedTime(list), Files.size(list), String.valueOf(Files.getAttribute(list, "unix:ino")));
            if (stamp.equals(now.stamp)) {
                return now;
            }
            List<String> lines = Files.readAllLines(list);
            now = new Known(lines.get(0), List.copyOf(new TreeSet<>(lines.subList(1, lines.size()))), stamp);
            known = now;
        } catch (IOException | IndexOutOfBoundsException error) {
            SharedManager.LOG.error("there is no list of session stores: " + error);
        }
        return now;
    }

    private static byte[][] unlocking(String id, String token) {
        return new byte[][] {bytes("EVAL"), UNLOCK, bytes("1"), bytes("l:" + id), bytes(token)};
    }

    private static List<byte[][]> command(String... words) {
        byte[][] encoded = new byte[words.length][];
        for (int index = 0; index < words.length; index++) {
            encoded[index] = bytes(words[index]);
        }
        return List.of(new byte[][][] {encoded});
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The answers of a store; null, and the store is left alone for a while, if there are none. */
    private Object[] ask(String name, List<byte[][]> commands, int patience) {
        Deque<Connection> free = idle.computeIfAbsent(name, key -> new ConcurrentLinkedDeque<>());
        IOException reason = null;
        for (int attempt = 0; attempt < 2; attempt++) {
            Connection connection = attempt == 0 ? free.poll() : null;
            boolean fresh = connection == null;
            try {
                if (fresh) {
                    connection = new Connection(name, known.secret, patience);
                }
                connection.socket.setSoTimeout(ANSWER_TIMEOUT[patience]);
                Object[] answers = connection.ask(commands);
                if (free.size() < IDLE_CONNECTIONS) {
                    free.push(connection);
                } else {
                    connection.close();
                }
                dead.remove(name);
                return answers;
            } catch (IOException error) {
                reason = error;
                if (connection != null) {
                    connection.close();
                }
                if (fresh || error instanceof java.net.SocketTimeoutException) {
                    break; // an old connection may have been closed by a store that was started again
                }
            }
        }
        if (dead.put(name, System.currentTimeMillis()) == null) {
            SharedManager.LOG.warn("the session store " + name + " does not answer: " + reason);
        }
        return null;
    }

    /** Send a command to a store that does not answer: it carries it out after what it was sent before, if it ever wakes up. */
    private void tell(String name, byte[][] words) {
        int blank = name.indexOf(' ');
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(name.substring(0, blank), Integer.parseInt(name.substring(blank + 1))), CONNECT_TIMEOUT[0]);
            OutputStream output = new BufferedOutputStream(socket.getOutputStream());
            for (byte[][] command : List.of(command("AUTH", known.secret).get(0), words)) {
                Connection.write(output, command);
            }
            output.flush();
        } catch (IOException error) {
            SharedManager.LOG.debug("the session store " + name + " cannot be told anything", error);
        }
    }

    /** A connection that speaks RESP. */
    private static final class Connection {
        private final Socket socket = new Socket();
        private final InputStream input;
        private final OutputStream output;

        Connection(String name, String secret, int patience) throws IOException {
            try {
                int blank = name.indexOf(' ');
                socket.setTcpNoDelay(true);
                socket.setSoTimeout(ANSWER_TIMEOUT[patience]);
                socket.connect(new InetSocketAddress(name.substring(0, blank), Integer.parseInt(name.substring(blank + 1))),
                    CONNECT_TIMEOUT[patience]);
                input = new BufferedInputStream(socket.getInputStream());
                output = new BufferedOutputStream(socket.getOutputStream());
                Object answer = ask(command("AUTH", secret))[0];
                if (answer instanceof IOException refused) {
                    throw refused;
                }
            } catch (IOException | RuntimeException error) {
                socket.close();
                throw error;
            }
        }

        void close() {
            try {
                socket.close();
            } catch (IOException error) {
                SharedManager.LOG.debug("a connection to a session store did not close", error);
            }
        }

        Object[] ask(List<byte[][]> commands) throws IOException {
            for (byte[][] words : commands) {
                write(output, words);
            }
            output.flush();
            Object[] answers = new Object[commands.size()];
            for (int index = 0; index < answers.length; index++) {
                answers[index] = read();
                if (answers[index] instanceof IOException refused && refused.getMessage().startsWith("LOADING")) {
                    throw refused;
                }
            }
            return answers;
        }

        static void write(OutputStream output, byte[][] words) throws IOException {
            output.write(bytes("*" + words.length + "\r\n"));
            for (byte[] word : words) {
                output.write(bytes("$" + word.length + "\r\n"));
                output.write(word);
                output.write('\r');
                output.write('\n');
            }
        }

        private Object read() throws IOException {
            String line = line();
            String rest = line.substring(1);
            switch (line.charAt(0)) {
                case '+':
                    return rest;
                case '-':
                    return new IOException(rest);
                case ':':
                    return Long.valueOf(rest);
                case '$':
                    int length = Integer.parseInt(rest);
                    if (length < 0) {
                        return null;
                    }
                    byte[] content = input.readNBytes(length + 2);
                    if (content.length < length + 2) {
                        throw new EOFException("the store closed the connection");
                    }
                    return java.util.Arrays.copyOf(content, length);
                default:
                    throw new IOException("not an answer: " + line);
            }
        }

        private String line() throws IOException {
            StringBuilder text = new StringBuilder();
            for (int next = input.read(); next != '\n'; next = input.read()) {
                if (next < 0) {
                    throw new EOFException("the store closed the connection");
                }
                if (next != '\r') {
                    text.append((char) next);
                }
            }
            if (text.length() == 0) {
                throw new IOException("an empty answer");
            }
            return text.toString();
        }
    }
}
