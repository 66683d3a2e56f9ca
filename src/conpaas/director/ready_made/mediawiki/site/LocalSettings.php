<?php
/**
 * MediaWiki on a php and a mysql service: everything that differs from one installation to the next comes from the environment.
 *
 * MYSQL_*            given by the mysql service (Bindings of its manifest, or cps-mysql bind)
 * MEDIAWIKI_NAME     optional: the name of the wiki
 * MEDIAWIKI_URL      optional: the address of the site; without it, the one that a visitor uses
 */

if (!defined('MEDIAWIKI')) {
    exit;
}

function conpaas_setting(string $name): string
{
    $value = getenv($name);
    if ($value === false || $value === '') {
        http_response_code(503);
        header('Content-Type: text/plain');
        error_log("MediaWiki: the environment variable $name is missing");
        exit("This site is not set up yet: the environment variable $name is missing.\n");
    }
    return $value;
}

$wgSitename = getenv('MEDIAWIKI_NAME') ?: 'Wiki';
$wgServer = rtrim(getenv('MEDIAWIKI_URL') ?: WebRequest::detectServer(), '/');
$wgScriptPath = '';
$wgArticlePath = '/index.php/$1';
$wgLanguageCode = 'en';

$wgDBtype = 'mysql';
$wgDBserver = conpaas_setting('MYSQL_HOST') . ':' . conpaas_setting('MYSQL_PORT');
$wgDBname = conpaas_setting('MYSQL_DATABASE');
$wgDBuser = conpaas_setting('MYSQL_USER');
$wgDBpassword = conpaas_setting('MYSQL_PASSWORD');
$wgDBTableOptions = 'ENGINE=InnoDB, DEFAULT CHARSET=binary';

// The password of the database is known to nobody but this site: sessions are signed with what is made of it.
$wgSecretKey = hash_hmac('sha256', 'mediawiki secret key', $wgDBpassword);
$wgAuthenticationTokenVersion = '1';

// All backends run the same code and share the database; what one of them keeps on its disk, the others do not see.
$wgMainCacheType = CACHE_DB;
$wgSessionCacheType = CACHE_DB;
$wgParserCacheType = CACHE_DB;
$wgMessageCacheType = CACHE_DB;
$wgCacheDirectory = sys_get_temp_dir();
$wgEnableUploads = false;
$wgUseImageMagick = false;
$wgEnableEmail = false;
$wgPhpCli = false;
$wgJobRunRate = 1;
$wgShellLocale = 'C.UTF-8';

wfLoadSkin('Vector');
$wgDefaultSkin = 'vector';
wfLoadExtension('ParserFunctions');
wfLoadExtension('Cite');

$wgRightsText = '';
$wgPingback = false;
