<?php
/*
 * Sessions shared by all backends of a service, without a change to the application: begin.php, which PHP runs before every script
 * (auto_prepend_file), makes this the handler, and session_start() and all that belongs to it then work on the service's session stores.
 *
 * Every session is in all stores (Redis), each time with a counter that grows; what is read is the newest of what the stores hold. So any
 * store may be lost at any moment. One request at a time has a session, as with PHP's own files. An application that sets a handler of its
 * own has that one.
 */
namespace ConPaaS;

final class Sessions implements \SessionHandlerInterface, \SessionUpdateTimestampHandlerInterface
{
    private const STORES = '@STORES@';
    private const MARKS = '@MARKS@';
    /** Seconds to connect, and to wait for an answer: first, and when no store is left. */
    private const TIMEOUTS = [[0.1, 1.0], [1.0, 3.0]];
    /** Seconds for which a store that did not answer is left alone by all processes of this backend. */
    private const DEAD_FOR = 2;
    /** A lock stays out of the log from which a store starts again: who had it could not let go of it while the store was away. */
    private const LOCK = "redis.set_repl(redis.REPL_NONE) return redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])";
    private const UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";
    /** Stored in place of a session that was destroyed, so that a store that was away does not bring it back. */
    private const GONE = '-';
    private const KEPT = '+';

    /** @var array<string, \Redis> what answers now, by "ip:port", in the order in which locks are taken */
    private array $stores = [];
    private string $id = '';
    private string $token = '';
    /** @var array<string, bool> the stores in which this request holds the lock of $id */
    private array $locked = [];
    private int $counter = 0;
    private string $newest = '';
    /** @var array<string, bool> the stores that hold what was read */
    private array $current = [];
    private bool $fetched = false;
    private bool $blind = false;
    /** Whether it is the second time, and time does not matter any more. */
    private bool $patient = false;
    /** @var array<string, bool> stores that may hold a lock of this request without having said so */
    private array $doubtful = [];
    private string $secret = '';

    /** Whatever a request without a session need not do is left until here. */
    public function open(string $path, string $name): bool
    {
        if ($this->token === '') {
            $this->token = bin2hex(random_bytes(8));
            // What is in the session is written before objects are destroyed, as they may be in it.
            session_register_shutdown();
        }
        return true;
    }

    public function validateId(string $id): bool
    {
        $this->fetch($id);
        if ($this->blind || $this->exists()) {
            return true;
        }
        $this->release();
        return false;
    }

    public function read(string $id): string|false
    {
        if (!$this->fetch($id)) {
            return false;
        }
        return $this->exists() ? substr($this->newest, 1) : '';
    }

    public function write(string $id, string $data): bool
    {
        return $this->put($id, self::KEPT . $data);
    }

    public function updateTimestamp(string $id, string $data): bool
    {
        if ($id !== $this->id || count($this->current) !== count($this->stores)) {
            return $this->put($id, self::KEPT . $data);
        }
        foreach ($this->stores as $name => $store) {
            $extended = $this->on($name, fn (\Redis $store) => $store->expire("s:$id", $this->lifetime()));
            if ($extended === false) {
                return $this->put($id, self::KEPT . $data);
            }
        }
        $this->release();
        return true;
    }

    public function destroy(string $id): bool
    {
        if ($id !== $this->id || !$this->fetched) {
            $this->fetch($id);
        }
        return $this->put($id, self::GONE);
    }

    public function close(): bool
    {
        $this->release();
        return true;
    }

    public function gc(int $max_lifetime): int|false
    {
        return 0; // the stores forget by themselves
    }

    private function exists(): bool
    {
        return $this->newest !== '' && $this->newest[0] === self::KEPT;
    }

    private function lifetime(): int
    {
        return max(1, (int) ini_get('session.gc_maxlifetime'));
    }

    /** Lock a session and read it from every store. False when another request does not let go of it. */
    private function fetch(string $id): bool
    {
        if ($id === $this->id && $this->fetched) {
            return true;
        }
        $this->release();
        $this->connect();
        $this->id = $id;
        if (!$this->lock()) {
            error_log("sessions: another request has held this session for too long");
            return false;
        }
        $this->counter = 0;
        $this->newest = '';
        $this->current = [];
        $answers = [];
        foreach ($this->stores as $name => $store) {
            $value = $this->on($name, fn (\Redis $store) => $store->get("s:$id"));
            if ($value === null) {
                continue;
            }
            $parts = explode(' ', (string) $value, 2);
            $answers[$name] = count($parts) === 2 ? (int) $parts[0] : 0;
            if ($answers[$name] > $this->counter) {
                $this->counter = $answers[$name];
                $this->newest = $parts[1];
            }
        }
        foreach ($answers as $name => $counter) {
            if ($counter === $this->counter && $counter > 0) {
                $this->current[$name] = true;
            }
        }
        $this->blind = !$answers;
        if ($this->blind && !$this->patient) {
            $this->patient = true;
            try {
                return $this->fetch($id);
            } finally {
                $this->patient = false;
            }
        }
        if ($this->blind) {
            error_log('sessions: no session store answers; this request goes on with an empty session, which will not be kept');
        }
        $this->fetched = true;
        return true;
    }

    private function put(string $id, string $value): bool
    {
        if ($id !== $this->id || !$this->fetched) {
            $this->fetch($id);
        }
        if ($this->blind) {
            return true; // was told when it was read
        }
        $this->counter++;
        $kept = $this->store($id, $value);
        if ($kept === 0) {
            $this->patient = true;
            $this->connect();
            $kept = $this->store($id, $value);
            $this->patient = false;
        }
        $this->release();
        if ($kept === 0) {
            error_log('sessions: no session store took the session; what changed in it is lost');
        }
        return $kept > 0;
    }

    /** Write to every store, and let go of its lock; returns how many took it. */
    private function store(string $id, string $value): int
    {
        $kept = 0;
        foreach ($this->stores as $name => $store) {
            $held = isset($this->locked[$name]);
            $done = $this->on($name, function (\Redis $store) use ($id, $value, $held) {
                $pipe = $store->pipeline();
                $pipe->setex("s:$id", $this->lifetime(), $this->counter . ' ' . $value);
                if ($held) {
                    $pipe->eval(self::UNLOCK, ["l:$id", $this->token], 1);
                }
                return $pipe->exec();
            });
            if (is_array($done) && $done[0]) {
                $kept++;
                unset($this->locked[$name]);
            } elseif (is_array($done)) {
                error_log("sessions: the store $name takes no session: " . $store->getLastError());
            } elseif ($held) {
                $this->doubtful[$name] = true;
            }
        }
        return $kept;
    }

    /** Take the lock of $this->id in every store, always in the same order, so that no two requests wait for each other. */
    private function lock(): bool
    {
        // A lock ends by itself when its holder was killed.
        $seconds = max(60, min(300, (int) ini_get('max_execution_time')));
        $deadline = microtime(true) + $seconds + 5;
        foreach ($this->stores as $name => $store) {
            $pause = 1000;
            while (true) {
                $words = ["l:{$this->id}", $this->token, $seconds * 1000];
                $taken = $this->on($name, fn (\Redis $store) => $store->eval(self::LOCK, $words, 1));
                if ($taken === null) {
                    $this->doubtful[$name] = true;
                    break; // this store does not answer any more
                }
                if (!$taken && $pause === 1000) { // it may have taken what it did not answer
                    $taken = $this->on($name, fn (\Redis $store) => $store->get("l:{$this->id}")) === $this->token;
                }
                if ($taken) {
                    $this->locked[$name] = true;
                    break;
                }
                if (microtime(true) > $deadline) {
                    $this->release();
                    return false;
                }
                usleep(random_int(intdiv($pause, 2), $pause));
                $pause = min(50000, $pause * 2);
            }
        }
        return true;
    }

    private function release(): void
    {
        foreach ($this->locked as $name => $_) {
            if ($this->on($name, fn (\Redis $store) => $store->eval(self::UNLOCK, ["l:{$this->id}", $this->token], 1)) === null) {
                $this->doubtful[$name] = true;
            }
        }
        foreach ($this->doubtful as $name => $_) {
            $this->tell($name, [['AUTH', $this->secret], ['EVAL', self::UNLOCK, '1', "l:{$this->id}", $this->token]]);
        }
        $this->locked = [];
        $this->doubtful = [];
        $this->fetched = false;
    }

    /** Connect to every store that is not known to be dead; the list is the agent's, and may change at any moment. */
    private function connect(): void
    {
        $lines = [];
        try {
            $lines = iterator_to_array(new \SplFileObject(self::STORES), false);
        } catch (\RuntimeException $error) {
            error_log('sessions: there is no list of session stores: ' . $error->getMessage());
        }
        $this->secret = trim((string) array_shift($lines));
        $names = [];
        foreach ($lines as $line) {
            if (count($words = explode(' ', trim($line))) === 2) {
                $names[implode(':', $words)] = $words;
            }
        }
        $found = [];
        foreach ($names as $name => [$ip, $port]) {
            if (!$this->patient && $this->seemsDead($name)) {
                continue;
            }
            $store = $this->stores[$name] ?? $this->connected($ip, (int) $port);
            if ($store === null) {
                touch($this->mark($name));
            } else {
                $found[$name] = $store;
            }
        }
        $this->stores = $found;
    }

    /** Send commands to a store that does not answer: it carries them out after what it was sent before, if it ever wakes up. */
    private function tell(string $name, array $commands): void
    {
        $text = '';
        foreach ($commands as $words) {
            $text .= '*' . count($words) . "\r\n";
            foreach ($words as $word) {
                $text .= '$' . strlen($word) . "\r\n$word\r\n";
            }
        }
        $stream = @stream_socket_client("tcp://$name", $code, $reason, self::TIMEOUTS[0][0]);
        if ($stream) {
            fwrite($stream, $text);
            fclose($stream);
        }
    }

    /** Whether a store did not answer a moment ago. One request at a time is told that it may be alive again, and tries. */
    private function seemsDead(string $name): bool
    {
        $mark = $this->mark($name);
        clearstatcache(true, $mark);
        $since = is_file($mark) ? filemtime($mark) : 0;
        if (!$since) {
            return false;
        }
        if (time() - $since < self::DEAD_FOR) {
            return true;
        }
        touch($mark);
        return false;
    }

    private function connected(string $ip, int $port): ?\Redis
    {
        try {
            $store = new \Redis();
            [$connect, $answer] = self::TIMEOUTS[(int) $this->patient];
            $store->pconnect($ip, $port, $connect, 'conpaas-sessions', 0, $answer, ['auth' => $this->secret]);
            $store->setOption(\Redis::OPT_READ_TIMEOUT, $answer);
            $mark = $this->mark("$ip:$port");
            if (is_file($mark) && $store->ping()) {
                @unlink($mark);
            }
            return $store;
        } catch (\RedisException) {
            return null;
        }
    }

    /** The file that tells all processes of this backend since when a store does not answer. */
    private function mark(string $name): string
    {
        return self::MARKS . '/dead-store-' . str_replace(':', '-', $name);
    }

    /** What a store answers; null, and the store is left alone for a while, when it does not. */
    private function on(string $name, callable $ask): mixed
    {
        if (!isset($this->stores[$name])) {
            return null;
        }
        try {
            return $ask($this->stores[$name]);
        } catch (\RedisException $error) {
            try {
                $this->stores[$name]->close();
            } catch (\RedisException) {
                // it was closed already
            }
            unset($this->stores[$name], $this->locked[$name], $this->current[$name]);
            touch($this->mark($name));
            error_log("sessions: the store $name does not answer: " . $error->getMessage());
            return null;
        }
    }
}
