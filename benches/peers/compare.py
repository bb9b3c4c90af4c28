"""Measures peers and Postroom in turn, and prints a table: messages a second, and CPU of the server per message.

Started by run.sh. Everything runs on 127.0.0.1, with its data in a folder that run.sh removes.
"""

import argparse
import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

CONNECTIONS = 64
BODY_BYTES = 250
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
HERE = pathlib.Path(__file__).parent
# A message counts once, however often it comes: what the primary key does elsewhere.
REDIS_SCRIPT = (
    "if redis.call('SET', KEYS[1], 1, 'NX') then redis.call('XADD', 'inbox', '*', 'body', ARGV[1]) return 1 end return 0"
)
POSTGRES_TABLE = """CREATE TABLE messages (message_id text PRIMARY KEY, from_msisdn text NOT NULL, to_msisdn text NOT NULL,
  ts text NOT NULL, text text, created_at text NOT NULL)"""
POSTGRES_INSERT = """\\set a random(1, 9000000000000000000)
INSERT INTO messages VALUES ('wamid.' || :a, '+919876543210', '+14155550100', '2026-11-01T10:00:00Z',
  'a hundred characters or so, as many as people usually write when they ask where their order is and when', now()::text)
  ON CONFLICT (message_id) DO NOTHING
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_seconds(root):
    """User and system time of a process and all below it, children that ended included."""
    stats, parents = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry)], stats[int(entry)] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_below(pid):
        while pid and pid != root:
            pid = parents.get(pid)
        return pid == root

    return sum(ticks for pid, ticks in stats.items() if is_below(pid)) / TICKS_PER_SECOND


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if what():
                return
        time.sleep(0.05)
    raise TimeoutError("a server did not start")


@contextlib.contextmanager
def running(command, log, **more):
    """A server in a session of its own, ended with everything below it."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **more)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measured(process, load):
    """Runs `load`, which answers how many messages it sent and in how many seconds."""
    before = cpu_seconds(process.pid)
    messages, seconds = load()
    spent = cpu_seconds(process.pid) - before
    return messages / seconds, spent / messages * 1e6


def accepts(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def redis(folder, seconds):
    port, server = free_port(), folder / "redis-server"
    # Debian's server is the same file as this checker; it looks at the name that it was started by.
    server.symlink_to(shutil.which("redis-server") or shutil.which("redis-check-rdb"))
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes"]
    with running([*command, "--appendfsync", "always"], folder / "log") as process:
        wait_for(lambda: accepts(port))
        client = ["redis-cli", "-p", str(port)]

        def length():
            return int(subprocess.check_output([*client, "XLEN", "inbox"]))

        script = subprocess.check_output([*client, "SCRIPT", "LOAD", REDIS_SCRIPT], text=True).strip()

        def load(messages):
            began, stored = time.monotonic(), length()
            subprocess.run(
                ["redis-benchmark", "-p", str(port), "-c", str(CONNECTIONS), "-n", str(messages), "-r", "2000000000", "-q"]
                + ["EVALSHA", script, "1", "id:__rand_int__", "x" * BODY_BYTES],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            # Ids that came twice by chance are not counted.
            return length() - stored, time.monotonic() - began

        messages, took = load(5_000)
        return measured(process, lambda: load(int(messages / took * seconds)))


def postgres(folder, seconds):
    packaged = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    tools = (packaged[-1] if packaged else pathlib.Path(shutil.which("initdb"))).parent
    # PostgreSQL refuses to run as root.
    user = {"user": pwd.getpwnam("postgres").pw_name} if os.geteuid() == 0 else {}
    port, data = free_port(), folder / "data"
    if user:
        shutil.chown(folder, "postgres")
    subprocess.run([tools / "initdb", "-D", data, "-A", "trust", "-U", "bench"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    options = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", f"port={port}", "shared_buffers=256MB"]
    options += ["fsync=on", "synchronous_commit=on", "max_wal_size=4GB"]
    command = [tools / "postgres", "-D", data, *(part for option in options for part in ("-c", option))]
    with running(command, folder / "log", cwd=folder, **user) as process:
        wait_for(lambda: accepts(port))
        client = ["-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
        create = [tools / "psql", *client, "-c", POSTGRES_TABLE, "postgres"]
        wait_for(lambda: subprocess.run(create, capture_output=True).returncode == 0)
        (folder / "insert.sql").write_text(POSTGRES_INSERT)

        def load():
            output = subprocess.check_output(
                [tools / "pgbench", *client, "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "2", "-T", str(seconds)]
                + ["-f", folder / "insert.sql", "postgres"],
                text=True,
                stderr=subprocess.DEVNULL,
            )
            messages = int(re.search(r"transactions actually processed: (\d+)", output)[1])
            return messages, messages / float(re.search(r"tps = ([0-9.]+)", output)[1])

        return measured(process, load)


def nats(folder, seconds):
    port = free_port()
    server = shutil.which("nats-server", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    (folder / "nats.conf").write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}", sync_interval: always }}\n'
    )
    with running([server, "-c", folder / "nats.conf"], folder / "log") as process:
        wait_for(lambda: accepts(port))

        def load():
            arguments = [str(number) for number in (port, CONNECTIONS, seconds, BODY_BYTES)]
            output = json.loads(subprocess.check_output([sys.executable, HERE / "nats_load.py", *arguments]))
            return output["messages"], output["seconds"]

        return measured(process, load)


def standin(folder, seconds, program):
    port = free_port()
    environment = dict(os.environ, WEBHOOK_SECRET="peers", DATABASE=str(folder / "app.db"))
    command = [sys.executable, "-m", "uvicorn", "standin:app", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with running(command, folder / "log", cwd=HERE, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"}) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(f"{url}/health/live").status == 200)

        def load(messages):
            lines = (
                json.dumps(
                    {
                        "message_id": f"wamid.{os.urandom(16).hex()}",
                        "from": "+919876543210",
                        "to": "+14155550100",
                        "ts": "2026-11-01T10:00:00Z",
                        "text": "as many words as people usually write when they ask where their order is and when it comes",
                    }
                )
                for _ in range(messages)
            )
            output = subprocess.run(
                [program, "send", "-", "--url", f"{url}/webhook", "--concurrency", str(CONNECTIONS), "--json"],
                input="\n".join(lines).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                check=True,
            )
            summary = json.loads(output.stdout)
            return summary["statuses"]["200"], summary["seconds"]

        messages, took = load(200)
        return measured(process, lambda: load(max(200, int(messages / took * seconds))))


def postroom(folder, seconds, program):
    """Postroom and its floor, by `postroom bench`: the same load over HTTP as in BENCHMARKS.md."""
    command = [program, "bench", "--only", "ingest-empty", "--connections", str(CONNECTIONS), "--rounds", "1", "--json"]
    command += ["--messages", str(seconds * 20_000), "--folder", folder]
    output = subprocess.run(command, capture_output=True)
    if output.returncode != 0:
        raise RuntimeError(output.stderr.decode())
    report = json.loads(output.stdout)
    rows = {row["case"]: row for row in report["ingest"]}
    return {case: (rows[case]["per_second"]["median"], rows[case]["cpu_us_caught_up"]["median"]) for case in ("empty", "floor")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    program, seconds = arguments.program.resolve(), arguments.seconds
    names = {
        "postroom": "Postroom: HTTP, HMAC, list, search and statistics",
        "redis": "Redis stream, appendfsync always, Lua dedupe; no HTTP, no HMAC, no queries",
        "postgres": "PostgreSQL, INSERT ... ON CONFLICT by pgbench; no HTTP, no HMAC, primary key only",
        "nats": "NATS JetStream, sync_interval always, dedupe by id; no HTTP, no HMAC, no queries",
        "standin": "FastAPI + sqlite3, a stand-in for the original: HTTP, HMAC, primary key only",
        "floor": "The floor of postroom bench: HTTP, HMAC, stores nothing",
    }
    peers = {
        "redis": lambda folder: {"redis": redis(folder, seconds)},
        "postgres": lambda folder: {"postgres": postgres(folder, seconds)},
        "nats": lambda folder: {"nats": nats(folder, seconds)},
        "standin": lambda folder: {"standin": standin(folder, seconds, program)},
        "postroom": lambda folder: {
            {"empty": "postroom"}.get(case, case): figures for case, figures in postroom(folder, seconds, program).items()
        },
    }
    results = {name: [] for name in names}
    # A signal must run the `finally`s, which stop the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for number in range(arguments.rounds):
        for name, peer in peers.items():
            print(f"round {number + 1} of {arguments.rounds}: {name}", file=sys.stderr)
            folder = arguments.folder.resolve() / f"{name}-{number}"
            folder.mkdir()
            for result, figures in peer(folder).items():
                results[result].append(figures)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n| {CONNECTIONS} connections, median (least–most) of {arguments.rounds} rounds | messages a second | server CPU, µs a message |")
    print("|---|---|---|")
    for name, title in names.items():
        columns = zip(*results[name])
        print(f"| {title} |", " | ".join(f"{statistics.median(c):,.0f} ({min(c):,.0f}–{max(c):,.0f})" for c in columns), "|")


main()
