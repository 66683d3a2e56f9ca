package conpaas.sessions;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

import org.apache.catalina.LifecycleException;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.Session;
import org.apache.catalina.session.ManagerBase;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Sessions shared by all backends of a service, without a change to the application. A request that asks for its session waits until no other
 * request has it, at most a while (some requests take minutes); then it goes on beside the other, and the attributes that each changes are
 * merged. A request that does not ask for a session costs nothing. Nothing is kept in memory between requests.
 */
public final class SharedManager extends ManagerBase {
    static final Log LOG = LogFactory.getLog(SharedManager.class);
    /** Milliseconds. */
    private static final long PATIENCE = 10_000;
    /** Seconds for which the stores keep a session that never expires, and remember one that is gone. */
    private static final long FOREVER = 30L * 24 * 3600;
    private static final long REMEMBERED = 3600;

    private final ThreadLocal<Map<String, SharedSession>> held = new ThreadLocal<>();
    private final String token = UUID.randomUUID().toString();
    private Stores stores;
    private String list = "";

    public void setStores(String path) {
        list = path;
    }

    public String getStores() {
        return list;
    }

    @Override
    protected void startInternal() throws LifecycleException {
        super.startInternal();
        stores = new Stores(Path.of(list));
        setState(LifecycleState.STARTING);
    }

    @Override
    protected void stopInternal() throws LifecycleException {
        setState(LifecycleState.STOPPING);
        stores.close();
        super.stopInternal();
    }

    @Override
    public void load() {
        // nothing is kept on this node
    }

    @Override
    public void unload() {
        // nothing is kept on this node
    }

    @Override
    public void backgroundProcess() {
        // the stores forget by themselves
    }

    @Override
    public Session createEmptySession() {
        return new SharedSession(this);
    }

    /** A request begins on this thread. */
    void begin() {
        held.set(new HashMap<>());
    }

    /** The request of this thread ends: keep what changed, and let others have the sessions. */
    void end(Session last) {
        Map<String, SharedSession> mine = held.get();
        held.remove();
        List<SharedSession> ending = new ArrayList<>(mine == null ? List.of() : mine.values());
        if (last instanceof SharedSession session && !ending.contains(session)) {
            ending.add(session); // of a request that goes on in another thread
        }
        for (SharedSession session : ending) {
            try {
                save(session);
            } catch (IOException | RuntimeException error) {
                LOG.error("a session could not be kept", error);
                stores.unlock(session.getIdInternal(), token(session), session.locked);
            }
        }
    }

    @Override
    public Session findSession(String id) throws IOException {
        if (id == null) {
            return null;
        }
        Map<String, SharedSession> mine = held.get();
        SharedSession session = mine == null ? null : mine.get(id);
        if (session != null) {
            return session;
        }
        session = new SharedSession(this);
        if (mine != null) {
            lock(id, session);
        }
        Stores.Found found = stores.read(id);
        if (found.blind()) {
            LOG.error("no session store answers; this request goes on without its session");
        }
        if (found.content() == null) {
            stores.unlock(id, token(session), session.locked);
            return null;
        }
        try {
            session.restore(id, found);
        } catch (IOException | RuntimeException error) {
            LOG.error("a session cannot be read and is given up", error);
            stores.unlock(id, token(session), session.locked);
            return null;
        }
        session.activate();
        return session;
    }

    @Override
    public void add(Session session) {
        Map<String, SharedSession> mine = held.get();
        SharedSession added = (SharedSession) session;
        if (mine == null) {
            return;
        }
        mine.put(session.getIdInternal(), added);
        if (added.found.content() == null && added.locked.isEmpty()) {
            lock(session.getIdInternal(), added); // its answer may be on its way before it is stored
        }
    }

    @Override
    public void remove(Session session, boolean update) {
        Map<String, SharedSession> mine = held.get();
        SharedSession removed = (SharedSession) session;
        String id = removed.getIdInternal();
        if (id == null || (mine != null && mine.remove(id) == null && removed.found.content() == null)) {
            return;
        }
        stores.write(id, removed.found.counter() + 1, null, Math.max(REMEMBERED, lifetime(removed)), token(removed), removed.locked);
        // Under a new id, if it gets one, it is a new session to the stores.
        removed.written(new HashMap<>(), new Stores.Found(0, null, java.util.Set.of(), false));
    }

    private void save(SharedSession session) throws IOException {
        String id = session.getIdInternal();
        if (id == null || !session.isValid()) {
            if (id != null) {
                stores.unlock(id, token(session), session.locked);
            }
            return;
        }
        session.passivate();
        Map<String, byte[]> now = session.serialized();
        if (!session.changed(now) && stores.touch(id, lifetime(session), session.found.current())) {
            stores.unlock(id, token(session), session.locked);
            return;
        }
        byte[] latest = session.found.content();
        long counter = session.found.counter();
        if (session.locked.isEmpty() && latest != null) {
            lock(id, session);
            Stores.Found other = stores.read(id);
            if (other.content() == null && other.counter() > counter) {
                stores.unlock(id, token(session), session.locked);
                return; // another request ended the session meanwhile
            }
            if (other.counter() > counter) {
                latest = other.content();
                counter = other.counter();
            }
        }
        byte[] content = session.content(now, latest);
        int taken = stores.write(id, counter + 1, content, lifetime(session), token(session), session.locked);
        if (taken == 0) {
            LOG.error("no session store took the session; what changed in it is lost");
        }
        session.written(now, new Stores.Found(counter + 1, content, session.found.current(), false));
    }

    private void lock(String id, SharedSession session) {
        if (!stores.lock(id, token(session), PATIENCE, session.locked)) {
            LOG.info("another request has had this session for " + PATIENCE / 1000 + " s; this one goes on beside it");
        }
    }

    private String token(SharedSession session) {
        return token + System.identityHashCode(session);
    }

    private static long lifetime(SharedSession session) {
        int seconds = session.getMaxInactiveInterval();
        return seconds > 0 ? seconds : FOREVER;
    }
}
