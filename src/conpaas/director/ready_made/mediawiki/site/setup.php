<?php
/**
 * The first account of a new wiki, which is its administrator. As soon as there is one, this page does nothing any more.
 */

use MediaWiki\Auth\AuthManager;
use MediaWiki\MediaWikiServices;

define('MW_ENTRY_POINT', 'index');
require __DIR__ . '/includes/WebStart.php';

function conpaas_page(string $body, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: text/html; charset=utf-8');
    header("Content-Security-Policy: default-src 'none'; form-action 'self'; base-uri 'none'");
    echo "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Set up the wiki</title>\n<main><h1>Set up the wiki</h1>\n$body</main>\n";
    exit;
}

function conpaas_form(string $problem = ''): void
{
    $said = $problem === '' ? '' : '<p role="alert"><strong>' . htmlspecialchars($problem) . "</strong></p>\n";
    conpaas_page(
        $said . <<<'FORM'
<p>Choose the name and the password of the wiki's administrator.</p>
<form id="setup" method="post">
<p><label>Name <input name="name" required maxlength="100" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password" required minlength="10" autocomplete="new-password"></label> at least 10 characters</p>
<p><button>Make the administrator</button></p>
</form>

FORM,
        $problem === '' ? 200 : 400
    );
}

$services = MediaWikiServices::getInstance();
$database = $services->getDBLoadBalancer()->getConnection(DB_PRIMARY);
if ($database->selectField('user', 'user_id', ["user_password <> ''"], 'setup') !== false) {
    conpaas_page('<p>This wiki is set up. <a href="/">To the wiki</a></p>', 403);
}
if (($_SERVER['REQUEST_METHOD'] ?? '') !== 'POST') {
    conpaas_form();
}

$user = $services->getUserFactory()->newFromName((string) ($_POST['name'] ?? ''), MediaWiki\User\UserRigorOptions::RIGOR_CREATABLE);
$password = (string) ($_POST['password'] ?? '');
if (!$user) {
    conpaas_form('This cannot be the name of a user.');
}
if (strlen($password) < 10) {
    conpaas_form('The password is too short.');
}
if ($user->idForName() === 0) {
    $made = $services->getAuthManager()->autoCreateUser($user, AuthManager::AUTOCREATE_SOURCE_MAINT, false);
    if (!$made->isGood()) {
        conpaas_form($made->getMessage(false, false, 'en')->text());
    }
}
$set = $user->changeAuthenticationData(['username' => $user->getName(), 'password' => $password, 'retype' => $password]);
if (!$set->isGood()) {
    conpaas_form($set->getMessage(false, false, 'en')->text());
}
$services->getUserGroupManager()->addUserToMultipleGroups($user, ['sysop', 'bureaucrat', 'interface-admin']);
$statistics = SiteStatsUpdate::factory(['users' => 1]);
$statistics->doUpdate();
$services->getDBLoadBalancerFactory()->commitPrimaryChanges('setup');
conpaas_page('<p>Done. <a href="/index.php?title=Special:UserLogin">Sign in</a></p>');
