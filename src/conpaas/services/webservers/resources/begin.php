<?php
/*
 * Run before every script of a site (auto_prepend_file). The class is there already where opcache has loaded it at the start.
 */
\class_exists('ConPaaS\\Sessions', false) || require '@SESSIONS@';
if (\function_exists('session_set_save_handler') && \session_status() === \PHP_SESSION_NONE) {
    \session_set_save_handler(new \ConPaaS\Sessions(), false);
}
