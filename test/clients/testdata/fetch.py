"""Fetch mail with poplib. Arguments: port user password home keep|delete.

Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
"""

import os
import poplib
import sys

port, user, password, home, mode = sys.argv[1:]
poplib._MAXLINE = 1 << 20  # the module refuses lines over 2,048 octets

seen_path = os.path.join(home, "seen")
seen = set()
if os.path.exists(seen_path):
    with open(seen_path, "rb") as f:
        seen = set(f.read().split())

try:
    pop = poplib.POP3("127.0.0.1", int(port), timeout=60)
    capabilities = pop.capa()
    assert "UIDL" in capabilities, capabilities
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
except poplib.error_proto as error:
    print(error)
    sys.exit(1)

with open(seen_path, "wb") as f:
    f.write(b"\n".join(sorted(seen)))
