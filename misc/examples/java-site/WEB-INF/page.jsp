<%@ page contentType="text/html; charset=UTF-8" session="true" trimDirectiveWhitespaces="true" import="java.util.*" %>
<%!
    static String shown(Object text) {
        return String.valueOf(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\"", "&quot;");
    }

    static String environment(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }
%>
<%
    Integer before = (Integer) session.getAttribute("visits"); // kept by ConPaaS where all backends find it
    int visits = before == null ? 1 : before + 1;
    session.setAttribute("visits", visits);

    String path = request.getPathInfo();
    String name = path == null || path.length() < 2 ? "world" : path.substring(1);
    String title = environment("GREETING", "Hello") + ", " + name; // cps-java env APP SRV GREETING=Moin

    Map<String, Object> facts = new LinkedHashMap<>();
    facts.put("Answered by", environment("MY_IP", java.net.InetAddress.getLocalHost().getHostName()) + ", process " + ProcessHandle.current().pid());
    facts.put("Your visits", visits);
    facts.put("Java", System.getProperty("java.version"));
    facts.put("Server", application.getServerInfo());
%>
<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title><%= shown(title) %></title>
    <link rel="stylesheet" href="${pageContext.request.contextPath}/style.css">
    <link rel="icon" href="${pageContext.request.contextPath}/nodes.svg" type="image/svg+xml">
</head>
<body>
    <main>
        <img src="${pageContext.request.contextPath}/nodes.svg" alt="" width="120" height="72">
        <h1><%= shown(title) %></h1>
        <dl>
<% for (Map.Entry<String, Object> fact : facts.entrySet()) { %>
            <dt><%= shown(fact.getKey()) %></dt>
            <dd><%= shown(fact.getValue()) %></dd>
<% } %>
        </dl>
        <p><a href="${pageContext.request.contextPath}/">Again</a> or <a href="${pageContext.request.contextPath}/hello/you">hello/you</a>: a servlet mapped to a tree of addresses.</p>
    </main>
</body>
</html>
