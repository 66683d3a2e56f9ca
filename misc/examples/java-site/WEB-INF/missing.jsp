<%@ page contentType="text/html; charset=UTF-8" isErrorPage="true" session="false" trimDirectiveWhitespaces="true" %>
<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <title>Not found</title>
    <link rel="stylesheet" href="${pageContext.request.contextPath}/style.css">
</head>
<body>
    <main>
        <h1>Not found</h1>
        <p>That is not here. <a href="${pageContext.request.contextPath}/">Back</a></p>
    </main>
</body>
</html>
