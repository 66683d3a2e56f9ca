"""What the page of a java service shows, beyond what all services have."""

from __future__ import annotations

from conpaas.services.webservers import page

PAGE = page.page(
    "update_java_configuration",
    page.settings(page.UPLOAD_SIZE, page.MAX_TIME, page.JVM_MEMORY),
    "Upload a WAR file, enable it, and start the service.",
)
