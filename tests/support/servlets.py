"""Servlets for tests, compiled as an application's developer would."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import tempfile

SOURCE = """
package tests;

import jakarta.servlet.*;
import jakarta.servlet.http.*;
import java.io.*;
import java.util.*;

public class Page extends HttpServlet {
    public static class Cart implements Serializable { public int n; }
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException, ServletException {
        PrintWriter out = response.getWriter();
        String what = request.getPathInfo() == null ? request.getServletPath() : request.getPathInfo();
        switch (what) {
            case "/count": {
                HttpSession session = request.getSession();
                Integer n = (Integer) session.getAttribute("n");
                session.setAttribute("n", n == null ? 1 : n + 1);
                out.print(session.getAttribute("n"));
                break;
            }
            case "/cart": {
                HttpSession session = request.getSession();
                Cart cart = (Cart) session.getAttribute("cart");
                if (cart == null) session.setAttribute("cart", cart = new Cart());
                cart.n++;
                out.print(cart.n);
                break;
            }
            case "/show": {
                HttpSession session = request.getSession(false);
                out.print(session == null ? "nothing" : session.getAttribute("n"));
                break;
            }
            case "/out": request.getSession().invalidate(); out.print("out"); break;
            case "/renew": out.print(request.getSession() == null ? "" : request.changeSessionId()); break;
            case "/thing": request.getSession().setAttribute("thing", new Object()); out.print("kept"); break;
            case "/slow": {
                new File(getServletContext().getRealPath("/began")).createNewFile();
                try { Thread.sleep(2000); } catch (InterruptedException error) { throw new IOException(error); }
                out.print("to the end");
                break;
            }
            case "/hold": {
                request.getSession().setAttribute("held", true);
                new File(getServletContext().getRealPath("/held")).createNewFile();
                try { while (!new File(getServletContext().getRealPath("/go")).exists()) Thread.sleep(5); }
                catch (InterruptedException error) { throw new IOException(error); }
                out.print("held");
                break;
            }
            case "/env": {
                response.setContentType("text/plain; charset=UTF-8");
                out.print(System.getenv("ODD") + "|" + System.getenv("HOME") + "|" + new TreeSet<>(System.getenv().keySet()));
                break;
            }
            case "/client": out.print(request.getRemoteAddr() + " " + request.getScheme() + " " + request.isSecure()); break;
            case "/url": out.print(request.getRequestURL()); break;
            case "/fail": throw new ServletException("on purpose");
            default: out.print(request.getServletPath() + " " + request.getPathInfo());
        }
    }
}
"""

BROKEN = """
package tests;

import jakarta.servlet.*;

public class Broken implements ServletContextListener {
    public void contextInitialized(ServletContextEvent event) {
        throw new IllegalStateException("the database is not configured");
    }
}
"""

WEB_XML = """<?xml version="1.0" encoding="UTF-8"?>
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  {more}
  <servlet><servlet-name>page</servlet-name><servlet-class>tests.Page</servlet-class></servlet>
  <servlet-mapping><servlet-name>page</servlet-name><url-pattern>/page/*</url-pattern></servlet-mapping>
  <servlet-mapping><servlet-name>page</servlet-name><url-pattern>*.do</url-pattern></servlet-mapping>
</web-app>
"""

LISTENER = "<listener><listener-class>tests.Broken</listener-class></listener>"


@functools.cache
def classes() -> dict[str, bytes]:
    """The compiled classes, by their names below WEB-INF/classes."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        for name, text in (("Page", SOURCE), ("Broken", BROKEN)):
            (directory / f"{name}.java").write_text(text)
        compiler = ("java", "-cp", "/usr/share/java/eclipse-jdt-core.jar", "org.eclipse.jdt.internal.compiler.batch.Main")
        options = ("-17", "-proc:none", "-nowarn", "-cp", "/usr/share/tomcat10/lib/servlet-api.jar", "-d", f"{scratch}/out")
        subprocess.run((*compiler, *options, *map(str, directory.glob("*.java"))), check=True, stdin=subprocess.DEVNULL)
        return {str(path.relative_to(directory / "out")): path.read_bytes() for path in (directory / "out").rglob("*.class")}


def application(more: str = "", **files: str) -> dict[str, str | bytes]:
    """An application with the servlet at `/page/*` and `*.do`; `more` goes into its web.xml."""
    compiled = {f"WEB-INF/classes/{name}": content for name, content in classes().items()}
    return {"WEB-INF/web.xml": WEB_XML.replace("{more}", more), "index.html": "welcome", **compiled, **files}
