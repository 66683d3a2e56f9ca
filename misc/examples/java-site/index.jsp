<%@ page contentType="text/html; charset=UTF-8" session="true" trimDirectiveWhitespaces="true" %>
<jsp:include page="/WEB-INF/page.jsp"/>
