package conpaas.sessions;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.security.Principal;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

import org.apache.catalina.session.StandardSession;
import org.apache.catalina.util.CustomObjectInputStream;

/**
 * A session as one request has it: read from the stores when the application first asks for it, written back when the request ends. What is
 * written are the attributes that the request changed, found by comparing their serialized forms, so that an object which was changed in
 * place counts, too.
 */
final class SharedSession extends StandardSession {
    private static final long serialVersionUID = 1L;
    private static final byte FORMAT = 1;
    /** Milliseconds by which the time of the last access may be behind in the stores, when nothing else changed. */
    private static final long PRECISION = 60_000;
    /** Names under which what is no attribute is kept among them. */
    private static final String PRINCIPAL = "\0principal";
    private static final String AUTH_TYPE = "\0authType";

    final transient Set<String> locked = new TreeSet<>();
    transient Stores.Found found = new Stores.Found(0, null, Set.of(), false);
    transient Map<String, byte[]> stored = new TreeMap<>();
    private transient long accessStored;

    SharedSession(SharedManager manager) {
        super(manager);
    }

    /** Fill in what the stores hold. */
    void restore(String id, Stores.Found from) throws IOException {
        found = from;
        try (DataInputStream input = new DataInputStream(new ByteArrayInputStream(from.content()))) {
            if (input.readByte() != FORMAT) {
                throw new IOException("the session has a format that this release does not know");
            }
            creationTime = input.readLong();
            lastAccessedTime = input.readLong();
            accessStored = lastAccessedTime;
            thisAccessedTime = lastAccessedTime;
            maxInactiveInterval = input.readInt();
            stored = attributes(input);
        }
        isNew = false;
        isValid = true;
        for (Map.Entry<String, byte[]> one : stored.entrySet()) {
            put(one.getKey(), one.getValue());
        }
        setId(id, false);
    }

    /** Whether the stores have to be told anything but that the session is alive. */
    boolean changed(Map<String, byte[]> now) {
        return found.content() == null || now.size() != stored.size() || thisAccessedTime - accessStored > PRECISION
            || now.entrySet().stream().anyMatch(one -> !Arrays.equals(one.getValue(), stored.get(one.getKey())));
    }

    /** The attributes as they are now, serialized. */
    Map<String, byte[]> serialized() {
        Map<String, byte[]> now = new TreeMap<>();
        for (String name : Collections.list(getAttributeNames())) {
            serialize(now, name, getAttribute(name));
        }
        if (getPrincipal() instanceof java.io.Serializable) {
            serialize(now, PRINCIPAL, getPrincipal());
            serialize(now, AUTH_TYPE, getAuthType());
        }
        return now;
    }

    /** What goes into the stores: `latest` (what is there now) with what this request changed. */
    byte[] content(Map<String, byte[]> now, byte[] latest) throws IOException {
        Map<String, byte[]> merged = now;
        if (latest != null && latest != found.content()) {
            try (DataInputStream input = new DataInputStream(new ByteArrayInputStream(latest))) {
                input.skipNBytes(1 + 8 + 8 + 4);
                merged = attributes(input);
            }
            for (Map.Entry<String, byte[]> one : now.entrySet()) {
                if (!Arrays.equals(one.getValue(), stored.get(one.getKey()))) {
                    merged.put(one.getKey(), one.getValue());
                }
            }
            for (String name : stored.keySet()) {
                if (!now.containsKey(name)) {
                    merged.remove(name);
                }
            }
        }
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        DataOutputStream output = new DataOutputStream(content);
        output.writeByte(FORMAT);
        output.writeLong(creationTime);
        output.writeLong(thisAccessedTime);
        output.writeInt(maxInactiveInterval);
        output.writeInt(merged.size());
        for (Map.Entry<String, byte[]> one : merged.entrySet()) {
            output.writeUTF(one.getKey());
            output.writeInt(one.getValue().length);
            output.write(one.getValue());
        }
        return content.toByteArray();
    }

    /** What was written is what the stores hold. */
    void written(Map<String, byte[]> now, Stores.Found as) {
        stored = now;
        found = as;
        accessStored = thisAccessedTime;
    }

    private static Map<String, byte[]> attributes(DataInputStream input) throws IOException {
        Map<String, byte[]> read = new TreeMap<>();
        for (int left = input.readInt(); left > 0; left--) {
            String name = input.readUTF();
            read.put(name, input.readNBytes(input.readInt()));
        }
        return read;
    }

    private void serialize(Map<String, byte[]> into, String name, Object value) {
        if (value == null) {
            return;
        }
        try {
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            try (ObjectOutputStream output = new ObjectOutputStream(content)) {
                output.writeObject(value);
            }
            into.put(name, content.toByteArray());
        } catch (IOException error) {
            SharedManager.LOG.error("the session attribute " + name + " of " + value.getClass().getName()
                + " is lost after this request, as it is not Serializable: " + error);
        }
    }

    private void put(String name, byte[] content) {
        ClassLoader loader = manager.getContext().getLoader().getClassLoader();
        try (CustomObjectInputStream input = new CustomObjectInputStream(new ByteArrayInputStream(content), loader)) {
            Object value = input.readObject();
            if (name.equals(PRINCIPAL)) {
                setPrincipal((Principal) value);
            } else if (name.equals(AUTH_TYPE)) {
                setAuthType((String) value);
            } else {
                attributes.put(name, value);
            }
        } catch (IOException | ClassNotFoundException | RuntimeException | LinkageError error) {
            SharedManager.LOG.warn("the session attribute " + name + " is dropped, as this release cannot read it: " + error);
        }
    }
}
