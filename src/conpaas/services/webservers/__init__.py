"""Web hosting, shared by the service types `php` and `java`: proxies, static web servers, backends, and the code they serve."""
