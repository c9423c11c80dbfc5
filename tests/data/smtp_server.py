#!/usr/bin/env python3
"""An SMTP server for the tests, which behaves well or badly as it is told.

It listens on a free port of 127.0.0.1 and writes that port to --port-file.
Under --folder it keeps:

  0001.eml, 0002.eml, ...    the bytes of each message it took, and no more
  0001.json, 0002.json, ...  its envelope: {"from": ..., "to": [...], "tls": ...}
  connections.log            the line "connection" for each TCP connection

Every file but the log appears whole, by a rename. The envelope appears before
its message, so a test that sees 0001.eml can read 0001.json too. Numbers go on
after those already in the folder, so a restarted server overwrites nothing. An
empty return path (MAIL FROM:<>) shows as an empty "from".

--behaviour is one of:

  accept            takes every message
  greylist:N        answers 451 to the first N RCPT commands, then accepts;
                    the count runs over all connections
  reject            answers 550 to every RCPT
  hang-greeting     takes the connection and never says anything
  hang-data         keeps nothing and never answers after the final dot
  accept-then-hang  keeps the message and never answers after the final dot
  drip              sends a greeting that never ends, one byte per second
  flood             sends bytes without a newline, without end
  close-after-dot   keeps the message, then closes without an answer

--tls starttls offers STARTTLS and does not insist on it: "tls" in the envelope
tells whether the client used it. With --tls implicit every behaviour, even
hang-greeting, comes after the TLS handshake. The behaviours that never get past
the greeting never come to STARTTLS either.

With --auth USER:PASSWORD nobody else may send anything.

The server ends when its standard input ends, or on SIGTERM, with status 0. A
test holds the other end of that pipe, so the server does not outlive it.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import ssl
import threading
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

BEHAVIOURS = (
    "accept",
    "reject",
    "hang-greeting",
    "hang-data",
    "accept-then-hang",
    "drip",
    "flood",
    "close-after-dot",
)
DAY = 24 * 60 * 60
CHUNK = 64 * 1024


def write_whole(path, data):
    """Puts `data` at `path` so that a reader finds all of it or no file."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


class Mailbox:
    """The folder that holds the messages, their envelopes and the log."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(p.stem) for p in folder.iterdir() if re.fullmatch(r"\d+\.(eml|json)", p.name)]
        self.last = max(taken, default=0)

    def note_connection(self):
        with open(self.folder / "connections.log", "a", encoding="ascii") as log:
            log.write("connection\n")

    def store(self, sender, recipients, tls, message):
        self.last += 1
        name = f"{self.last:04}"
        envelope = {"from": sender, "to": recipients, "tls": tls}
        write_whole(self.folder / f"{name}.json", json.dumps(envelope).encode("ascii") + b"\n")
        write_whole(self.folder / f"{name}.eml", message)


class Handler:
    """What the server does at RCPT and after the final dot.

    aiosmtpd calls the `handle_` methods; what they return is the answer.
    """

    def __init__(self, behaviour, refusals, mailbox):
        self.behaviour = behaviour
        self.refusals = refusals
        self.mailbox = mailbox

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.behaviour == "reject":
            return "550 5.7.1 not here"
        if self.refusals > 0:
            self.refusals -= 1
            return "451 4.7.1 try later"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.behaviour != "hang-data":
            sender = "" if envelope.mail_from == "<>" else envelope.mail_from
            tls = server.transport.get_extra_info("ssl_object") is not None
            self.mailbox.store(sender, envelope.rcpt_tos, tls, envelope.original_content)
        if self.behaviour == "accept":
            return "250 OK"
        if self.behaviour == "close-after-dot":
            server.transport.close()
        return await asyncio.Event().wait()  # until the end of the connection cancels it


async def say_nothing(reader, writer):
    while await reader.read(CHUNK):
        pass


async def drip(reader, writer):
    for byte in itertools.chain(b"220 ", itertools.repeat(ord("."))):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def flood(reader, writer):
    while True:
        writer.write(b"2" * CHUNK)
        await writer.drain()
        await asyncio.sleep(0)  # drain() alone does not yield to a client that reads fast


TALKS = {"hang-greeting": say_nothing, "drip": drip, "flood": flood}


def plain_protocol(talk):
    """A protocol without SMTP: one of TALKS until either end is gone."""

    async def connected(reader, writer):
        try:
            await talk(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client went away, or the server ends
        finally:
            writer.close()

    return asyncio.StreamReaderProtocol(asyncio.StreamReader(), connected)


def authenticator(wanted):
    """Lets one user in."""

    def check(_server, _session, _envelope, _mechanism, given):
        return AuthResult(success=b"%s:%s" % (given.login, given.password) == wanted.encode())

    return check


def protocol_factory(arguments, mailbox, context):
    """What makes the protocol of each new connection, and logs the connection."""
    behaviour, refusals = arguments.behaviour
    handler = Handler(behaviour, refusals, mailbox)
    loop = asyncio.get_running_loop()

    def connected():
        mailbox.note_connection()
        if behaviour in TALKS:
            return plain_protocol(TALKS[behaviour])
        return SMTP(
            handler,
            hostname="localhost",  # the default asks the resolver
            enable_SMTPUTF8=True,
            tls_context=context if arguments.tls == "starttls" else None,
            timeout=DAY,  # the one who hangs up is the client
            authenticator=authenticator(arguments.auth) if arguments.auth else None,
            auth_required=bool(arguments.auth),
            auth_require_tls=False,
            loop=loop,
        )

    return connected


def stop_at_end_of_input(loop, stop):
    """Sets `stop` once standard input ends; runs in a thread of its own."""
    try:
        while os.read(0, CHUNK):
            pass
    except OSError:
        pass  # standard input is closed, which is an end as well
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        pass  # the loop is already closed


async def serve(arguments):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    watcher = threading.Thread(target=stop_at_end_of_input, args=(loop, stop), daemon=True)
    watcher.start()

    context = None
    if arguments.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert, arguments.key)
    factory = protocol_factory(arguments, Mailbox(arguments.folder), context)
    implicit = context if arguments.tls == "implicit" else None
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=implicit)
    port = server.sockets[0].getsockname()[1]
    write_whole(arguments.port_file, f"{port}\n".encode("ascii"))
    await stop.wait()
    server.close()  # asyncio.run() then cancels what the open connections still do


def behaviour(text):
    """Reads --behaviour as a name and the number of RCPT commands to refuse first."""
    greylist = re.fullmatch(r"greylist:([0-9]+)", text)
    if greylist:
        return "accept", int(greylist[1])
    if text in BEHAVIOURS:
        return text, 0
    raise argparse.ArgumentTypeError(f"{text!r} is none of greylist:N, {', '.join(BEHAVIOURS)}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--behaviour", type=behaviour, default="accept")
    parser.add_argument("--tls", choices=["none", "starttls", "implicit"], default="none")
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--auth", metavar="USER:PASSWORD")
    arguments = parser.parse_args()
    if arguments.tls != "none" and not (arguments.cert and arguments.key):
        parser.error(f"--tls {arguments.tls} needs --cert and --key")
    asyncio.run(serve(arguments))


if __name__ == "__main__":
    main()
