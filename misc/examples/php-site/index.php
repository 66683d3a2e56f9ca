<?php
// The front controller: every address that no file answers comes here, with REQUEST_URI as the visitor typed it.

declare(strict_types=1);

$path = rawurldecode((string) parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
if ($path === '/health') { // cps-php settings APP SRV healthPath=/health
    header('Content-Type: text/plain');
    exit("ok\n");
}

session_start(); // kept by ConPaaS where all backends find it
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;

$greeting = getenv('GREETING') ?: 'Hello'; // cps-php env APP SRV GREETING=Moin
$name = 'world';
$found = true;
if (preg_match('#^/hello/([^/]{1,40})$#u', $path, $part)) {
    $name = $part[1];
} elseif ($path !== '/' && $path !== '/index.php') {
    http_response_code(404);
    $found = false;
}

$facts = [
    'Answered by' => (getenv('MY_IP') ?: gethostname()) . ', process ' . getmypid(),
    'Your visits' => $_SESSION['visits'],
    'Code version' => basename(__DIR__),
    'PHP' => PHP_VERSION,
];

function shown(mixed $text): string
{
    return htmlspecialchars((string) $text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}
?>
<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title><?= $found ? shown("$greeting, $name") : 'Not found' ?></title>
    <link rel="stylesheet" href="/style.css">
    <link rel="icon" href="/nodes.svg" type="image/svg+xml">
</head>
<body>
    <main>
        <img src="/nodes.svg" alt="" width="120" height="72">
<?php if ($found): ?>
        <h1><?= shown("$greeting, $name") ?></h1>
        <dl>
<?php foreach ($facts as $what => $value): ?>
            <dt><?= shown($what) ?></dt>
            <dd><?= shown($value) ?></dd>
<?php endforeach ?>
        </dl>
        <p><a href="/">Again</a> or <a href="/hello/you">hello/you</a>: an address without a file.</p>
<?php else: ?>
        <h1>Not found</h1>
        <p><?= shown($path) ?> is not here. <a href="/">Back</a></p>
<?php endif ?>
    </main>
</body>
</html>
