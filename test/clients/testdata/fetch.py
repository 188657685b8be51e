"""Fetch mail with poplib. Arguments: port user password home keep|delete.
From the environment: POP_TLS (plain, stls or implicit), POP_MECHANISM (PASS or APOP), POP_CA (a file).

Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
"""

import os
import poplib
import ssl
import sys

port, user, password, home, mode = sys.argv[1:]
poplib._MAXLINE = 1 << 20  # the module refuses lines over 2,048 octets

seen_path = os.path.join(home, "seen")
seen = set()
if os.path.exists(seen_path):
    with open(seen_path, "rb") as f:
        seen = set(f.read().split())

try:
    tls = os.environ["POP_TLS"]
    context = ssl.create_default_context(cafile=os.environ["POP_CA"] or None)
    if tls == "implicit":
        pop = poplib.POP3_SSL("127.0.0.1", int(port), timeout=60, context=context)
    else:
        pop = poplib.POP3("127.0.0.1", int(port), timeout=60)
    if tls == "stls":
        assert "STLS" in pop.capa(), "no STLS"
        pop.stls(context)
    capabilities = pop.capa()
    assert "UIDL" in capabilities, capabilities
    assert tls == "plain" or tls == "" or "STLS" not in capabilities, "STLS inside TLS"
    if os.environ["POP_MECHANISM"] == "APOP":
        pop.apop(user, password)
    else:
        pop.user(user)
        pop.pass_(password)
    count, total = pop.stat()
    sizes = [int(line.split()[1]) for line in pop.list()[1]]
    assert (len(sizes), sum(sizes)) == (count, total), "STAT and LIST disagree"
    for line in pop.uidl()[1]:
        number, uid = line.split()
        if uid in seen:
            continue
        _, lines, _ = pop.retr(int(number))
        message = b"".join(line + b"\r\n" for line in lines)
        size = sizes[int(number) - 1]
        assert len(message) == size, "message %s: LIST says %d, RETR sends %d" % (number.decode(), size, len(message))
        with open(os.path.join(home, "out", "%06d" % int(number)), "wb") as f:
            f.write(message)
        seen.add(uid)
        if mode == "delete":
            pop.dele(int(number))
    pop.quit()
except (poplib.error_proto, ssl.SSLError) as error:
    print(error)
    sys.exit(1)

with open(seen_path, "wb") as f:
    f.write(b"\n".join(sorted(seen)))
