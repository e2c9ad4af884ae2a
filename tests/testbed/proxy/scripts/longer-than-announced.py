# SPDX-License-Identifier: Apache-2.0
"""More bytes follow than Content-Length announced: they are no part of the body."""
from proxy import DATA, GOT, reply

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT
answer = lambda s, c, r: reply(c, 206, DATA[100:300], ["Content-Range: bytes 100-199/2000", 'ETag: "1"'], length=100)
