"""`tamp top` against a real server: once, through a pipe, with a key, and without a server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

from harness import BINARY, ROOT, Cases, Server, check, free_port, user

KEY = "a-key-of-the-tests"


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BINARY, "top", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def once(server: Server) -> None:
    server.chat(user("Hello", max_tokens=4))
    got = top("--once", "--interval", "1", f"http://127.0.0.1:{server.port}")
    check(got.returncode == 0, got.stderr)
    for part in ("requests", "running 0", "first token", "p50", "rows saved", "KV memory", "up 0 h 0 min"):
        check(part in got.stdout, f"no '{part}' in:\n{got.stdout}")
    done = server.metric("tamp_request_success_total")
    check(f"done {done:.0f}" in got.stdout, got.stdout)
    check("\033" not in got.stdout, "escapes in a pipe")


def through_a_pipe(server: Server) -> None:
    """One picture after the other, until the reader leaves."""
    process = subprocess.Popen(
        [BINARY, "top", "--interval", "1", f"127.0.0.1:{server.port}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    titles = 0
    while titles < 3:
        line = process.stdout.readline()
        check(line, "it ended by itself")
        titles += line.startswith("tamp ")
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()


def with_key() -> None:
    with Server("--api-key", KEY, tiny=True) as server:
        url = f"http://127.0.0.1:{server.port}"
        refused = top("--once", url)
        check(refused.returncode == 1 and "TAMP_API_KEY" in refused.stderr, refused.stderr)
        taken = top("--once", "--interval", "1", url, TAMP_API_KEY=KEY)
        check(taken.returncode == 0 and KEY not in taken.stdout, taken.stderr)


def nobody_there() -> None:
    got = top("--once", f"127.0.0.1:{free_port()}")
    check(got.returncode == 1 and "is tamp serve running there?" in got.stderr, got.stderr)
    check(len(got.stderr.splitlines()) == 1, got.stderr)
    for arguments in (("https://127.0.0.1",), ("http://a:b",), ("a", "b"), ("--interval", "0")):
        got = top(*arguments)
        check(got.returncode == 2, f"{arguments}: {got.returncode}: {got.stderr}")


def another_program() -> None:
    """Something that answers, but is not tamp."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nother_total 1\n")

        thread = threading.Thread(target=answer)
        thread.start()
        got = top("--once", f"127.0.0.1:{port}")
        thread.join()
        check(got.returncode == 1 and "another program" in got.stderr, got.stderr)


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        cases.run("once", lambda: once(server))
        cases.run("through a pipe", lambda: through_a_pipe(server))
        cases.run("with a key", with_key)
        cases.run("nobody there, wrong words", nobody_there)
        cases.run("another program", another_program)
        cases.end(server)


if __name__ == "__main__":
    main()
