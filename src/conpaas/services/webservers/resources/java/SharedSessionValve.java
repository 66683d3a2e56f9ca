package conpaas.sessions;

import java.io.IOException;

import jakarta.servlet.ServletException;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.valves.ValveBase;

/** Tells the manager of sessions where a request begins and ends. It belongs to the host, so that error pages are part of the request. */
public final class SharedSessionValve extends ValveBase {
    public SharedSessionValve() {
        super(true);
    }

    @Override
    public void invoke(Request request, Response response) throws IOException, ServletException {
        Context context = request.getContext();
        if (context == null || !(context.getManager() instanceof SharedManager manager)) {
            getNext().invoke(request, response);
            return;
        }
        manager.begin();
        try {
            getNext().invoke(request, response);
        } finally {
            manager.end(request.getSessionInternal(false));
        }
    }
}
