<?php
/**
 * WordPress on a php and a mysql service: everything that differs from one installation to the next comes from the environment.
 *
 * MYSQL_*            given by the mysql service (cps-mysql bind)
 * WORDPRESS_SECRET   optional: a secret of the php service, of which the keys of cookies are made; another one signs everybody out.
 *                    Without it, they are made of the password of the database, which nobody but this site knows either.
 * WORDPRESS_URL      optional: the address of the site; without it, the one where the set-up form was filled in
 */

function conpaas_setting(string $name): string
{
    $value = getenv($name);
    if ($value === false || $value === '') {
        http_response_code(503);
        header('Content-Type: text/plain');
        error_log("WordPress: the environment variable $name is missing");
        exit("This site is not set up yet: the environment variable $name is missing.\n");
    }
    return $value;
}

define('DB_NAME', conpaas_setting('MYSQL_DATABASE'));
define('DB_USER', conpaas_setting('MYSQL_USER'));
define('DB_PASSWORD', conpaas_setting('MYSQL_PASSWORD'));
define('DB_HOST', conpaas_setting('MYSQL_HOST') . ':' . conpaas_setting('MYSQL_PORT'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
$table_prefix = 'wp_';

$secret = getenv('WORDPRESS_SECRET') ?: DB_PASSWORD;
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $purpose) {
    foreach (['KEY', 'SALT'] as $part) {
        define("{$purpose}_{$part}", hash_hmac('sha256', "{$purpose}_{$part}", $secret));
    }
}

if (getenv('WORDPRESS_URL')) {
    define('WP_HOME', rtrim(getenv('WORDPRESS_URL'), '/'));
    define('WP_SITEURL', WP_HOME);
}

// Plain HTTP is served where no certificate is; with one, the proxies lead everybody to HTTPS.
define('FORCE_SSL_ADMIN', false);

// All backends run the same code, which comes with an upload: WordPress itself changes none of it.
define('FS_METHOD', 'direct');
define('DISALLOW_FILE_MODS', true);
define('AUTOMATIC_UPDATER_DISABLED', true);

define('WP_DEBUG', false);

if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
